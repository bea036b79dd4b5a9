"""The prompts that callbacks evaluate on."""

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import Trainer

from rlr.data.prompts import PromptData
from rlr.evaluation.samples import SampleSet
from rlr.records.record import TRAINING


def sample_sets(
    trainer: Trainer,
    sets: Mapping[str, PromptData] | None,
    split: str,
    samples: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, SampleSet]:
    """Returns samples of the prompts of a split of every set, by default of the run's own data under the name of its class.

    The training prompts of the run's own data have a name of their own, because results on them are not those of held-out prompts.

    Args:
        trainer: The trainer.
        sets: The sets by name.
        split: The split.
        samples: The samples per prompt, instead of the number of each set.
        limit: The most prompts of each set.
        seed: The seed of all noise.

    Raises:
        ValueError: If the run's data are no prompts, or a set has none in that split.
    """
    found = {}
    for name in sets or ():
        if not name or Path(name).name != name or name == ".." or "\0" in name:
            raise ValueError(
                f"Evaluation.prompts: expected names that can be those of folders, got {name!r}; leave out / and line breaks"
            )
    for name, data in (_own(trainer, split) if sets is None else sets).items():
        prompts = data.read(split)[:limit]
        if not prompts:
            raise ValueError(
                f"{name} ({type(data).__name__}): expected prompts for {split!r}, found 0; {data.remedy(split)}, or set "
                "split of Evaluation to another one"
            )
        found[name] = SampleSet(prompts, samples or data.evaluation_samples, seed, data.batch_size)
    return found


def _own(trainer: Trainer, split: str) -> dict[str, PromptData]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, PromptData):
        raise ValueError(
            f"evaluation: expected prompts as the run's data, found {type(data).__name__}; set prompts of the evaluation"
        )
    return {TRAINING if split == "train" else type(data).__name__: data}
