"""The methods that are compared, as committed configs and what differs from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

RATES = ("3.0e-4", "1.0e-3", "3.0e-3")
"""The learning rates that are tried."""


@dataclass(frozen=True)
class Target:
    """A reward to train for.

    Args:
        name: Its name in tables.
        label: The measurement that tells it in an evaluation, its published scale included.
        suffix: How the names of configs say it, where there is one for each reward.
        overrides: Words that set it, where there is not.
    """

    name: str
    label: str
    suffix: str = ""
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A way to train.

    Args:
        name: Its name in tables.
        config: The config, relative to the repository; ``{reward}`` stands for a target's suffix.
        overrides: Words of the command line without dashes, such as ``model.init_args.optimization.decay_steps=0``.
        samples: How many samples an update takes; 0 for a method without training.
        updates_per_round: The number of updates of a round of samples; a run ends with a whole round.
        seeds: The words that hold the seed.
        layer: The config of the evaluation, where it is another than that of other methods.
        rate: The word of the learning rate, or of what takes its place.
        rates: Those that are tried.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    samples: int = 16
    updates_per_round: int = 1
    seeds: tuple[str, ...] = ("model.init_args.seed", "data.init_args.seed")
    layer: str = ""
    rate: str = "model.init_args.optimization.lr"
    rates: tuple[str, ...] = RATES

    def but(self, *overrides: str) -> "Method":
        """Returns the method with further words, in the place of earlier ones of the same settings."""
        further = {word.partition("=")[0] for word in overrides}
        kept = tuple(word for word in self.overrides if word.partition("=")[0] not in further)
        return replace(self, overrides=kept + overrides)

    def towards(self, target: Target) -> "Method":
        """Returns the method that trains for a reward."""
        return replace(self.but(*target.overrides), config=self.config.format(reward=target.suffix))

    def updates(self, samples: int) -> int:
        """Returns the updates that take so many samples.

        Raises:
            ValueError: If no whole number of rounds does.
        """
        updates, rest = divmod(samples, self.samples)
        if rest or updates % self.updates_per_round or not updates:
            raise ValueError(
                f"{samples} samples: expected a whole number of rounds of {self.name}, each of "
                f"{self.updates_per_round * self.samples} samples; use a multiple"
            )
        return updates

    def updates_in(self, seconds: float, cost: float) -> int:
        """Returns the updates of whole rounds whose cost is the nearest to so many seconds, at ``cost`` seconds an update."""
        return max(1, round(seconds / cost / self.updates_per_round)) * self.updates_per_round


def _world(name: str, label: str) -> Target:
    return Target(name, label, overrides=(f"model.init_args.reward={name}",))


TINY_TARGETS = (_world("TinyPickScore", "TinyPickScore"), _world("TinyHPSv2", "TinyHPSv2 x100"))

_STEPS = "model.init_args.sampler.init_args.steps"
_ESTIMATOR = "model.init_args.estimator.init_args"

DDPO = Method("DDPO", "configs/image/tiny_ddpo.yaml", updates_per_round=4)
ALIGNPROP = Method("AlignProp", "configs/image/tiny_alignprop.yaml")
TRUNCATED = Method("DRaFT-2", "configs/image/tiny_backprop.yaml", (f"{_ESTIMATOR}.steps=2",))
# of five steps first order covers one, half order two, and zeroth order the other two
RLR = Method("RLR", "configs/image/tiny_rlr_paper.yaml", (f"{_STEPS}=5", f"{_ESTIMATOR}.length=2"))
# a run that is evaluated on its way must not depend on where it ends
HALF_ORDER = Method("half-order RLR", "configs/image/tiny_rlr.yaml", ("model.init_args.optimization.decay_steps=0",))
TINY_METHODS = (DDPO, ALIGNPROP, TRUNCATED, RLR, HALF_ORDER)


def ablations(method: Method) -> tuple[Method, Method, Method]:
    """Returns V1, V2 and V3 of the paper's ablation of RLR."""
    half, zeroth = f"{_ESTIMATOR}.half=false", f"{_ESTIMATOR}.zeroth=false"
    return (
        replace(method.but(half, zeroth), name="V1, without half and zeroth order"),
        replace(method.but(zeroth), name="V2, without zeroth order"),
        replace(method.but(half), name="V3, without half order"),
    )


def truncations(method: Method, depths: Sequence[str], names: Sequence[str]) -> list[Method]:
    """Returns backpropagation through the last steps, one method a depth."""
    chosen = zip(depths, names, strict=True)
    return [replace(method.but(f"{_ESTIMATOR}.steps={depth}"), name=name) for depth, name in chosen]


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
        # four updates a round of 32 samples, which the others take for one
        Method("DDPO", f"{path}_ddpo_{{reward}}.yaml", samples=8, updates_per_round=4),
        Method("AlignProp", f"{path}_alignprop_{{reward}}.yaml", samples=32),
        Method("RLR", f"{path}_rlr_{{reward}}.yaml", samples=32),
    )


def staged(config: str, plain: Sequence[str], layers: tuple[str, str], samples: int) -> tuple[Method, Method]:
    """Returns training with whole prompts and with prompts told in stages.

    Args:
        config: A config with staged prompts.
        plain: The words that put whole prompts in their place.
        layers: The configs of the evaluation with whole and with staged prompts.
        samples: How many samples an update takes.
    """
    seeds = ("model.init_args.seed", "data.init_args.data.init_args.seed")
    whole, told = layers
    return (
        Method("RLR without DCoT", config, tuple(plain), samples, layer=whole),
        Method("RLR-DCoT", config, (), samples, seeds=seeds, layer=told),
    )


CLIP_TARGETS = (Target("TinyHPSv2", "TinyHPSv2 x100"),)
"""The reward of the configs of clips."""

_CONSTANT = "model.init_args.optimization.decay_steps=0"
CLIP_METHODS = (
    Method("DDPO", "configs/video/tiny_ddpo.yaml", samples=8, updates_per_round=4),
    Method("VADER", "configs/video/tiny_vader.yaml", (_CONSTANT,), samples=8),
    Method("RLR", "configs/video/tiny_rlr_paper.yaml", samples=8),
    Method("half-order RLR", "configs/video/tiny_rlr.yaml", (_CONSTANT,), samples=8),
)

ITERATIONS = 5
"""Of DOODL."""
# clipping decides the length of a move at this scale, so that the clip is the learning rate
CLIP_LATENTS = Method(
    "DOODL",
    "configs/video/doodl_tiny.yaml",
    ("model.init_args.steps=10", f"model.init_args.iterations={ITERATIONS}", "model.init_args.scale=100"),
    samples=0,
    seeds=("model.init_args.seed",),
    rate="model.init_args.clip",
    rates=("1.0e-2", "3.0e-2", "1.0e-1"),
)

VC2_TARGET = Target("HPSv2", "HPSv2.1 x100", "hpsv2")
VC2_METHODS = (
    Method("DDPO", "configs/video/vc2_ddpo_{reward}.yaml", samples=8, updates_per_round=2),
    Method("VADER", "configs/video/vc2_vader_{reward}.yaml", samples=8),
    Method("RLR", "configs/video/vc2_rlr_{reward}.yaml", samples=8),
)
VC2_LATENTS = Method("DOODL", "configs/video/doodl_vc2_{reward}.yaml", samples=0, seeds=("model.init_args.seed",))
