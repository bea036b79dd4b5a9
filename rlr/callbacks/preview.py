"""Samples of a few prompts before and after training, for runs whose config has no evaluation during training."""

from rlr.callbacks.evaluation import Evaluation
from rlr.evaluation.grid import SampleGrid
from rlr.evaluation.results import Results


class Preview(Evaluation):
    """Samples and scores a few prompts before training, every ``every`` updates and at the end, and prints nothing.

    Args:
        split: The split of the run's own data.
        number: The number of prompts.
        every: The updates between two previews; 0 is at the end of training only, None never.
    """

    def __init__(self, split: str = "val", number: int = 8, every: int | None = 50) -> None:
        super().__init__(displays=[SampleGrid(number)], every=every, samples=1, limit=number, split=split)

    def state(self, results: Results) -> None:
        """The page of the run shows them."""
