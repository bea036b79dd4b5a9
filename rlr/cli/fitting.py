"""Whether training fits into a memory, and what to change if it does not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from rlr.analysis.candidates import candidates
from rlr.analysis.footprint.total import Footprint
from rlr.estimators import DDPO, AllSteps, FirstOrder
from rlr.estimators.base import Estimator
from rlr.modules.memory import Memory

SPARE = 0.1
"""The share of a memory that must be left over, because an estimate has an error."""


@dataclass(frozen=True)
class Fit:
    """A need and what there is for it.

    Args:
        needed: The bytes that are needed.
        there: The bytes that there are.
    """

    needed: int
    there: int

    @property
    def fits(self) -> bool:
        """Whether there is enough, with something left over."""
        return self.needed <= (1 - SPARE) * self.there

    @property
    def close(self) -> bool:
        """Whether there is enough, with too little left over for an estimate."""
        return not self.fits and self.needed <= self.there

    @property
    def word(self) -> str:
        """Fits, close, or does not fit."""
        return "fits" if self.fits else "close" if self.close else "does not fit"


def compared(footprint: Footprint) -> dict[str, Estimator]:
    """Returns the estimators to compare by name, that of the config first."""
    chain, differentiable = footprint.module.chain, footprint.module.reward.differentiable
    others = {**candidates(chain.steps, differentiable), "DDPO": DDPO()}
    if differentiable:
        others["FirstOrder(all steps)"] = FirstOrder(AllSteps())
    return {f"{type(footprint.estimator).__name__} of the config": footprint.estimator, **others}


def needs(footprint: Footprint) -> dict[str, tuple[int, int]]:
    """Returns the bytes on the device by estimator, as the config saves memory, and with steps computed again."""
    found: dict[str, tuple[int, int]] = {}
    for name, estimator in compared(footprint).items():
        memories = [footprint.memory, replace(footprint.memory, checkpoint_steps=True)]
        try:
            asis, again = (footprint.peak(estimator, memory).device for memory in memories)
        except ValueError:
            # another one may not fit the chain, as likelihood ratios without noise
            if estimator is footprint.estimator:
                raise
            continue
        found[name] = asis, again
    return found


@dataclass(frozen=True)
class Change:
    """A change of the config.

    Args:
        text: What to set.
        needed: The bytes on the device that are needed then.
    """

    text: str
    needed: int


def changes(footprint: Footprint, needed: Mapping[str, tuple[int, int]], there: int) -> list[Change]:
    """Returns the changes after which training fits, each by itself, or else those that help most together."""
    single = list(_single(footprint, needed, there))
    enough = [change for change in single if Fit(change.needed, there).fits]
    return enough or list(_together(footprint))


def _single(footprint: Footprint, needed: Mapping[str, tuple[int, int]], there: int) -> Iterator[Change]:
    own, *others = needed
    asis, again = needed[own]
    if not footprint.memory.checkpoint_steps:
        yield Change("set model.memory.checkpoint_steps: true (a further pass of each replayed step)", again)
    if text := footprint.texts.device:
        yield Change("set the model's text: OnCPU (text encoders in the CPU's memory)", asis - text)
    yield from _smaller(footprint, there)
    for name in others:
        yield Change(f"take another estimator: {name}", needed[name][0])
    if not footprint.memory.offload_activations and footprint.libraries:
        offloaded = replace(footprint.memory, offload_activations=True)
        yield Change(
            "set model.memory.offload_activations: true (activations in the CPU's memory)",
            footprint.peak(memory=offloaded).device,
        )


def _smaller(footprint: Footprint, there: int) -> Iterator[Change]:
    """Yields the largest smaller batch that fits."""
    batch = footprint.batch // 2
    while batch:
        try:
            change = Change(_batch(footprint, batch), footprint.peak(batch=batch).device)
        except ValueError:
            # an estimator may need several samples
            return
        if Fit(change.needed, there).fits:
            yield change
            return
        batch //= 2


def _batch(footprint: Footprint, batch: int) -> str:
    rounds = footprint.module.optimization.accumulate * (footprint.batch // batch)
    return f"set data.batch_size: {batch}, with model.optimization.accumulate: {rounds} for as many samples an update"


def _together(footprint: Footprint) -> Iterator[Change]:
    """Yields all that saves memory without another estimator, with the smallest batch that the estimator takes."""
    memory, text = Memory(checkpoint_steps=True), footprint.texts.device
    for batch in (1, 2):
        try:
            least = footprint.peak(memory=memory, batch=batch).device - text
        except ValueError:
            # an estimator may need several samples
            continue
        parts = ["model.memory.checkpoint_steps: true", *(["text: OnCPU"] if text else []), f"data.batch_size: {batch}"]
        yield Change(f"set {', '.join(parts)} together", least)
        return
