"""The compared methods, as committed configs and options that override them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

RATES = ("1.0e-4", "3.0e-4", "1.0e-3", "3.0e-3", "1.0e-2")
"""The learning rates of the tries; a method may have five values of another option instead."""


@dataclass(frozen=True)
class Target:
    """The reward of a training run.

    Args:
        name: The name in tables.
        label: The name of the reward in an evaluation, including its published scale.
        suffix: The suffix of the configs of this reward, if each reward has its own config.
        overrides: The options that set the reward, otherwise.
    """

    name: str
    label: str
    suffix: str = ""
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A way to train.

    Args:
        name: The name in tables.
        config: The config, relative to the repository; ``{reward}`` stands for a target's suffix.
        overrides: Options of the command line without dashes, such as ``model.init_args.optimization.decay_steps=0``.
        samples: The number of samples of an update; 0 for a method without training.
        updates_per_round: The number of updates of a round of samples; a run ends with a whole round.
        seeds: The options that contain the seed.
        evaluation: The config of the evaluation, if it differs from that of other methods.
        rate: The option of the learning rate, or of the parameter in its place.
        rates: The learning rates of the tries.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    samples: int = 16
    updates_per_round: int = 1
    seeds: tuple[str, ...] = ("model.init_args.seed", "data.init_args.seed")
    evaluation: str = ""
    rate: str = "model.init_args.optimization.lr"
    rates: tuple[str, ...] = RATES

    def with_overrides(self, *overrides: str) -> "Method":
        """Returns the method with further options, which replace earlier values of the same options."""
        further = {argument.partition("=")[0] for argument in overrides}
        kept = tuple(argument for argument in self.overrides if argument.partition("=")[0] not in further)
        return replace(self, overrides=kept + overrides)

    def with_reward(self, target: Target) -> "Method":
        """Returns the method with a reward."""
        return replace(self.with_overrides(*target.overrides), config=self.config.format(reward=target.suffix))

    def updates(self, samples: int) -> int:
        """Returns the number of updates with this number of samples.

        Raises:
            ValueError: If the samples are not a whole number of rounds.
        """
        updates, rest = divmod(samples, self.samples)
        if rest or updates % self.updates_per_round or not updates:
            raise ValueError(
                f"{samples} samples: expected a whole number of rounds of {self.name}, each of "
                f"{self.updates_per_round * self.samples} samples; use a multiple"
            )
        return updates

    def updates_in(self, seconds: float, cost: float) -> int:
        """Returns the number of updates, in whole rounds, whose cost is nearest to the seconds, at ``cost`` seconds an update."""
        return max(1, round(seconds / cost / self.updates_per_round)) * self.updates_per_round


def _world(name: str, label: str) -> Target:
    return Target(name, label, overrides=(f"model.init_args.reward={name}",))


TINY_TARGETS = (_world("TinyPickScore", "TinyPickScore"), _world("TinyHPSv2", "TinyHPSv2 x100"))

_ESTIMATOR = "model.init_args.estimator.init_args"


def ablations(method: Method) -> tuple[Method, Method, Method]:
    """Returns V1, V2 and V3 of the paper's ablation of RLR."""
    half, zeroth = f"{_ESTIMATOR}.half=false", f"{_ESTIMATOR}.zeroth=false"
    return (
        replace(method.with_overrides(half, zeroth), name="V1, without half and zeroth order"),
        replace(method.with_overrides(zeroth), name="V2, without zeroth order"),
        replace(method.with_overrides(half), name="V3, without half order"),
    )


def truncations(method: Method, depths: Sequence[str], names: Sequence[str]) -> list[Method]:
    """Returns backpropagation through the last steps, one method for each depth."""
    chosen = zip(depths, names, strict=True)
    return [replace(method.with_overrides(f"{_ESTIMATOR}.steps={depth}"), name=name) for depth, name in chosen]


SD_TARGETS = (
    Target("PickScore", "PickScore", "pickscore"),
    Target("HPSv2", "HPSv2.1 x100", "hpsv2"),
    Target("AES", "AES", "aes"),
    Target("ImageReward", "ImageReward x100", "imagereward"),
)


def stable_diffusion(model: str) -> tuple[Method, Method, Method]:
    """Returns the three methods of the paper's Table 2 for ``sd14`` or ``sd21``."""
    path = f"configs/image/{model}"
    return (
        # four updates a round of 32 samples; the other methods make one update of 32 samples
        Method("DDPO", f"{path}_ddpo_{{reward}}.yaml", samples=8, updates_per_round=4),
        Method("AlignProp", f"{path}_alignprop_{{reward}}.yaml", samples=32),
        Method("RLR", f"{path}_rlr_{{reward}}.yaml", samples=32),
    )


def staged(config: str, plain: Sequence[str], evaluations: tuple[str, str], samples: int) -> tuple[Method, Method]:
    """Returns training with whole prompts and with staged prompts.

    Args:
        config: A config with staged prompts.
        plain: The options that replace them by whole prompts.
        evaluations: The configs of the evaluation with whole and with staged prompts.
        samples: The number of samples of an update.
    """
    seeds = ("model.init_args.seed", "data.init_args.data.init_args.seed")
    whole, stages = evaluations
    return (
        Method("RLR without DCoT", config, tuple(plain), samples, evaluation=whole),
        Method("RLR-DCoT", config, (), samples, seeds=seeds, evaluation=stages),
    )


CLIP_TARGETS = (Target("TinyHPSv2", "TinyHPSv2 x100"),)
"""The reward of the video configs."""

_CHAIN = ("model.init_args.sampler.init_args.steps=10", "model.init_args.optimization.decay_steps=0")
"""Ten steps, and a constant learning rate: a run that is evaluated during training must not depend on its number of updates."""
CLIP_METHODS = (
    Method("DDPO", "configs/video/tiny_ddpo.yaml", _CHAIN, samples=8, updates_per_round=4),
    Method("VADER", "configs/video/tiny_vader.yaml", _CHAIN, samples=8),
    # first order covers one of ten steps, half order four, and zeroth order the other five
    Method("RLR", "configs/video/tiny_rlr_paper.yaml", (*_CHAIN, f"{_ESTIMATOR}.length=4"), samples=8),
    Method("half-order RLR", "configs/video/tiny_rlr.yaml", _CHAIN, samples=8),
    Method("look-ahead RLR", "configs/video/tiny_look_ahead.yaml", _CHAIN, samples=8),
)

ITERATIONS = 5
"""The iterations of DOODL."""
# clipping determines the step size at this scale, so `clip` acts as the learning rate
CLIP_LATENTS = Method(
    "DOODL",
    "configs/video/doodl_tiny.yaml",
    ("model.init_args.steps=10", f"model.init_args.iterations={ITERATIONS}", "model.init_args.scale=100"),
    samples=0,
    seeds=("model.init_args.seed",),
    rate="model.init_args.clip",
    rates=("1.0e-2", "3.0e-2", "1.0e-1", "3.0e-1", "1.0"),
)

VC2_TARGET = Target("HPSv2", "HPSv2.1 x100", "hpsv2")
VC2_METHODS = (
    Method("DDPO", "configs/video/vc2_ddpo_{reward}.yaml", samples=8, updates_per_round=2),
    Method("VADER", "configs/video/vc2_vader_{reward}.yaml", samples=8),
    Method("RLR", "configs/video/vc2_rlr_{reward}.yaml", samples=8),
)
VC2_LATENTS = Method("DOODL", "configs/video/doodl_vc2_{reward}.yaml", samples=0, seeds=("model.init_args.seed",))
