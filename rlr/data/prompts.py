"""Prompts as data: what all data sets share. A data set itself says only what its prompts are."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from rlr.data.cleaning import PromptFilter
from rlr.data.stream import PromptPass, PromptStream, never
from rlr.io.text import check_text


class PromptData(LightningDataModule, ABC):
    r"""Batches of prompts. A data set is a subclass with one method, :meth:`prompts`.

    A subclass with arguments of its own takes those below as ``**loader``, and passes them on.

    Args:
        batch_size: The number :math:`B` of samples in a batch of one process.
        samples_per_prompt: The number :math:`k` of samples of one prompt, side by side in a training batch.
        evaluation_samples: The number of samples of each prompt in validation, test and prediction.
        seed: Decides the order of each training pass.
        shuffle: Whether to read training prompts in random order.
        keep: Decides which prompts are kept, in every split; all of them by default.

    Raises:
        ValueError: If a number is less than 1, or :math:`k` does not divide :math:`B`.
    """

    def __init__(
        self,
        batch_size: int = 4,
        samples_per_prompt: int = 1,
        evaluation_samples: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        keep: PromptFilter | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or samples_per_prompt < 1 or evaluation_samples < 1:
            raise ValueError(
                "batch_size, samples_per_prompt and evaluation_samples are at least 1, "
                f"and {batch_size}, {samples_per_prompt} and {evaluation_samples} were given"
            )
        if batch_size % samples_per_prompt:
            raise ValueError(
                f"batch_size={batch_size} does not hold whole groups of samples_per_prompt={samples_per_prompt}; "
                "make it a multiple"
            )
        self.batch_size = batch_size
        self.samples_per_prompt = samples_per_prompt
        self.evaluation_samples = evaluation_samples
        self.seed = seed
        self.shuffle = shuffle
        self.keep = keep
        self.finished: Callable[[str, int], bool] = never
        """Whether a sample to predict, given by its prompt and index, is there already."""
        self._splits: dict[str, list[str]] = {}

    @abstractmethod
    def prompts(self, split: str) -> Sequence[str]:
        """Returns all prompts of ``train``, ``val``, ``test`` or ``predict``, before ``keep``; which may be empty."""

    def read(self, split: str) -> list[str]:
        """Returns the prompts of a split that ``keep`` keeps. They are read once.

        Raises:
            ValueError: If a prompt is not valid text, or ``keep`` drops all of them.
        """
        if split not in self._splits:
            self._splits[split] = self._kept(split, self.prompts(split))
        return self._splits[split]

    def check(self, command: str) -> None:
        """Raises what a command would raise for its prompts; called before a model is loaded.

        Args:
            command: ``fit``, ``validate``, ``test`` or ``predict``.
        """
        self._required({"fit": "train", "validate": "val"}.get(command, command))

    def _kept(self, split: str, prompts: Sequence[str]) -> list[str]:
        for number, prompt in enumerate(prompts, 1):
            check_text(prompt, f"prompt {number} of the split {split!r} of {type(self).__name__}")
        kept = [prompt for prompt in prompts if self.keep is None or self.keep(prompt)]
        if prompts and not kept:
            raise ValueError(
                f"{type(self.keep).__name__} keeps none of the {len(prompts)} prompts of the split {split!r} of "
                f"{type(self).__name__}; set data.init_args.keep to a filter that is less strict"
            )
        return kept

    def train_dataloader(self) -> PromptStream:
        """An endless, resumable stream; see :class:`~rlr.data.stream.PromptStream`."""
        prompts = self._required("train")
        rank, world = self._place()
        return PromptStream(prompts, self.batch_size, self.samples_per_prompt, self.seed, self.shuffle, rank, world)

    def val_dataloader(self) -> PromptPass | list[object]:
        """Every validation prompt once. Training, not validation, may do without."""
        if self._command() != "validate" and not self.read("val"):
            return []
        return self._pass("val")

    def test_dataloader(self) -> PromptPass:
        """Every test prompt once."""
        return self._pass("test")

    def predict_dataloader(self) -> PromptPass:
        """Every prompt to predict once, without batches that are finished."""
        return self._pass("predict", finished=self._is_finished)

    def _is_finished(self, prompt: str, index: int) -> bool:
        # found when the prediction begins, after the loader is made
        return self.finished(prompt, index)

    def _pass(self, split: str, **further: Any) -> PromptPass:
        return PromptPass(self._required(split), self.batch_size, self.evaluation_samples, *self._place(), **further)

    def _required(self, split: str) -> list[str]:
        prompts = self.read(split)
        if not prompts:
            raise ValueError(f"{type(self).__name__} has no prompts for {split!r}; {self.remedy(split)}")
        return prompts

    def remedy(self, split: str) -> str:
        """What to do if there are no prompts for a split, as the end of a message."""
        return f"set data.init_args.{split}"

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _command(self) -> str:
        """The trainer's running command: ``fit``, ``validate``, ``test``, ``predict``; empty outside of one."""
        command = self.trainer.state.fn if self.trainer else None
        return command.value if command else ""
