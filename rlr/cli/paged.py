"""What ``fit`` and ``test`` sample for the page of a run."""

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningDataModule, LightningModule

from rlr.callbacks import Evaluation, Listener, Preview, SampleGrid
from rlr.data import PromptData
from rlr.modules import Alignment

PAGED = ("fit", "test")
"""The commands after which the page of the run is written."""


def samples_to_show(
    command: str, module: LightningModule, data: LightningDataModule | None, given: Sequence[Callback]
) -> list[Callback]:
    """Adds a grid of samples to the evaluations of a config that have none, or returns a callback where there are no evaluations.

    Args:
        command: ``fit`` or ``test``.
        module: The module; one that is no alignment has no samples to show.
        data: The prompts.
        given: The callbacks of the config.
    """
    if not isinstance(module, Alignment) or not isinstance(data, PromptData):
        return []
    evaluations = [c for c in given if isinstance(c, Evaluation) and (command == "test" or c.every is not None)]
    if any(c.displays for c in evaluations) or any(isinstance(c, Preview) for c in given):
        return []
    if evaluations:
        evaluations[0].displays.append(SampleGrid())
        return []
    if command == "test":
        return [Evaluation(displays=[SampleGrid()])]
    # a listener needs an evaluation of the user's own
    return [] if any(isinstance(c, Listener) for c in given) else [Preview("val" if data.read("val") else "train")]
