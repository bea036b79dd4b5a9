"""The prompts that callbacks look at."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from lightning.pytorch import Trainer

from rlr.data.prompts import PromptData
from rlr.models.staged import StagedPrompt


@dataclass(frozen=True)
class HeldOut:
    r"""Prompts, how many samples each gets, and how many are made at once."""

    prompts: list[str]
    samples: int
    batch: int

    @property
    def key(self) -> dict[str, object]:
        """What the samples depend on."""
        digest = hashlib.sha256("\n".join(map(_whole, self.prompts)).encode()).hexdigest()
        return {"prompts": digest, "number": len(self.prompts), "samples": self.samples}


def _whole(prompt: str) -> str:
    """Returns a prompt with its stages, if it has any."""
    return repr(prompt) if isinstance(prompt, StagedPrompt) else prompt


def held_out(
    trainer: Trainer,
    sets: Mapping[str, PromptData] | None,
    split: str,
    samples: int | None = None,
    limit: int | None = None,
) -> dict[str, HeldOut]:
    """Returns the prompts of a split of every set, by default those of the run's own data under its class's name.

    Raises:
        ValueError: If the run's data are no prompts, or a set has none in that split.
    """
    sets = _own(trainer) if sets is None else sets
    found = {name: (data.read(split)[:limit], data) for name, data in sets.items()}
    for name, (prompts, data) in found.items():
        if not prompts:
            raise ValueError(
                f"the prompts {name} ({type(data).__name__}) have none for {split!r}, which evaluation asks for; give "
                "them some, or name another split"
            )
    return {
        name: HeldOut(prompts, samples or data.evaluation_samples, data.batch_size)
        for name, (prompts, data) in found.items()
    }


def _own(trainer: Trainer) -> dict[str, PromptData]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, PromptData):
        raise ValueError(
            f"evaluation needs prompts, and the run's data ({type(data).__name__}) are none; name sets of prompts"
        )
    return {type(data).__name__: data}
