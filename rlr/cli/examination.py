"""The parts of a config, built without weights and without a download."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule

from rlr.analysis.footprint.training import PROMPT
from rlr.callbacks import EMA
from rlr.cli.error_messages import sentence
from rlr.cli.parser import build
from rlr.cli.user_errors import ERRORS, cause
from rlr.data import PromptData
from rlr.io.inventory import Inventory, without_weights
from rlr.io.offline import offline
from rlr.models import DiffusionModel
from rlr.modules import Alignment
from rlr.rewards import Reward

BATCH = 1
"""The number of samples where the data do not state one."""


@dataclass
class Examination:
    """What a config needs, as far as it is on this machine.

    Args:
        inventory: The sources of weights, settings and prompts.
        module: The module, without weights; None where a part is missing.
        batch: The number :math:`B` of samples of a batch.
        prompt: A training prompt.
        precision: The trainer's precision.
        averaged: Whether an average of the trained weights is kept.
        faults: What prevents the training, besides missing sources, in sentences.
    """

    inventory: Inventory = field(default_factory=Inventory)
    module: LightningModule | None = None
    batch: int = BATCH
    prompt: str = PROMPT
    precision: str | None = None
    averaged: bool = False
    faults: list[str] = field(default_factory=list)

    @property
    def alignment(self) -> Alignment | None:
        """The module, if it is an alignment, whose memory is known."""
        return self.module if isinstance(self.module, Alignment) else None


def examine(config: Any) -> Examination:
    """Returns what a parsed config needs, and what of it is there."""
    found = Examination()
    with ExitStack() as stack:
        stack.enter_context(offline())
        found.inventory = stack.enter_context(without_weights())
        found.module = _tried(lambda: build(config.model, LightningModule, "model"), found)
        if found.module is None:
            for value, base, place in _parts(config):
                _tried(lambda value=value, base=base, place=place: build(value, base, place), found)  # type: ignore[misc]
        data = _tried(lambda: build(config.data, LightningDataModule, "data"), found)
    if isinstance(data, PromptData):
        found.batch = data.batch_size
        prompts = _tried(lambda: data.read("train"), found)
        found.prompt = str(prompts[0]) if prompts else PROMPT
    found.precision = None if config.trainer.precision is None else str(config.trainer.precision)
    found.averaged = any(_names(callback, EMA) for callback in config.trainer.callbacks or [])
    return found


def _parts(config: Any) -> Iterator[tuple[Any, type, str]]:
    """Yields the parts of a module that read files, each of which may be missing."""
    arguments = config.model.get("init_args") or {}
    for name, base in (("model", DiffusionModel), ("reward", Reward)):
        if arguments.get(name):
            yield arguments[name], base, f"model.{name}"


def _tried(make: Callable[[], Any], found: Examination) -> Any:
    """Returns what is made, or notes why it cannot be; a missing source is in the inventory already."""
    missing = len(found.inventory.missing)
    try:
        return make()
    except (*ERRORS, RuntimeError) as error:
        fault = sentence(cause(error))
        if len(found.inventory.missing) == missing and not found.inventory.missing and fault not in found.faults:
            found.faults.append(fault)
        return None


def _names(callback: Any, kind: type) -> bool:
    """Whether a part of a config is of a class."""
    return str(callback.get("class_path", "") if hasattr(callback, "get") else "").rpartition(".")[2] == kind.__name__
