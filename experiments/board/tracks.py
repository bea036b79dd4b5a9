"""The tracks of the board: what is trained for, for how long, and what is reported."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from experiments.methods import Method, Target

_INIT = "model.init_args"
COMMON = (
    # the curve of a run with a constant learning rate contains the runs of every smaller budget
    f"{_INIT}.optimization.decay_steps=0",
    # what the seconds of an update do not need
    f"{_INIT}.optimization.log_terms=false",
    f"{_INIT}.optimization.log_kl_every=0",
    # a method that diverges is a result, and no error
    f"{_INIT}.optimization.max_bad_steps=1000000",
)
"""The options of every method besides the steps: no guidance, a constant learning rate."""


@dataclass(frozen=True)
class Track:
    """A track of the board.

    Args:
        name: A part of the names of its experiments.
        title: What distinguishes the track.
        target: The reward of the training.
        gold: The names of measurements that are not used in training, with their names in figures.
        judge: The name of the measurement that selects the learning rates. Where the reward is learned, and so can be exploited,
            it is another learned reward; the other gold measurements take no part in any choice.
        samples: The number of samples of a run, which is its number of reward calls if the method scores each sample once.
        every: The number of samples between two evaluations.
        tuning_samples: The number of samples of a try.
        gain: The difference of the fixed held-out score from that of the base model.
        seconds: The CPU seconds of the comparison at equal seconds.
        model: The trained model.
        sampler: The sampler of all runs, in words.
        steps: The number of its steps.
    """

    name: str
    title: str
    target: Target
    gold: tuple[tuple[str, str], ...]
    judge: str
    samples: int
    every: int
    tuning_samples: int
    gain: float
    seconds: float
    model: str = "Tiny"
    sampler: str = "DDIM with eta = 1"
    steps: int = 10

    def configure(self, method: Method) -> Method:
        """Returns a method with the reward and the options of the track; its own options replace them."""
        options = (f"{_INIT}.sampler.init_args.steps={self.steps}", *COMMON)
        bare = replace(method, overrides=()).with_overrides(*options).with_reward(self.target)
        return bare.with_overrides(*method.overrides)

    @property
    def measurements(self) -> list[str]:
        """The names of what is reported: the reward, the gold measurements and the diversity, each once."""
        return list(dict.fromkeys([self.target.label, *(label for label, _ in self.gold), "diversity"]))

    def points(self, method: Method) -> tuple[int, ...]:
        """Returns the numbers of updates after which a run is evaluated."""
        return points(method, range(self.every, self.samples + 1, self.every))


def late_points(method: Method, samples: int) -> tuple[int, ...]:
    """Returns the numbers of updates after which a try is evaluated: a half, three quarters and all of its samples."""
    return points(method, [samples // 2, samples * 3 // 4, samples])


def points(method: Method, samples: Sequence[int]) -> tuple[int, ...]:
    """Returns the numbers of updates of the first whole rounds with these numbers of samples or more.

    Raises:
        ValueError: If the last number of samples is not a whole number of rounds.
    """
    size = method.samples * method.updates_per_round
    on_the_way = {ceil(count / size) * method.updates_per_round for count in samples[:-1]}
    return tuple(sorted({*on_the_way, method.updates(samples[-1])}))


TRACK_A = Track(
    "a",
    "a differentiable reward, TinyPickScore",
    Target("TinyPickScore", "TinyPickScore", overrides=(f"{_INIT}.reward=TinyPickScore",)),
    gold=(("ExactCheck", "exact check"), ("TinyHPSv2 x100", "TinyHPSv2 × 100")),
    judge="TinyHPSv2 x100",
    samples=3200,
    every=400,
    tuning_samples=1280,
    gain=0.5,
    seconds=138.0,
)
TRACK_B = Track(
    "b",
    "a black-box reward, the exact check",
    Target("ExactCheck", "ExactCheck", overrides=(f"{_INIT}.reward=ExactCheck",)),
    gold=(("TinyPickScore", "TinyPickScore"), ("TinyHPSv2 x100", "TinyHPSv2 × 100")),
    judge="ExactCheck",
    samples=3200,
    every=400,
    tuning_samples=1280,
    gain=0.03,
    seconds=264.0,
)
TRACK_FLOW = replace(
    TRACK_A,
    name="flow",
    title="a differentiable reward on a rectified flow",
    model="TinyFlow",
    sampler="FlowSDE with the noise level 0.7",
)
TRACK_LONG = replace(TRACK_A, name="long", title="a differentiable reward and a chain twice as long", steps=20)
