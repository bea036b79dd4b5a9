"""Prompts as data: from files, or listed in the config."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning.pytorch import LightningDataModule

from rlr.data.cleaning import Entry, PromptFilter, check_disjoint, chosen, clean, texts
from rlr.data.files import prompt_of, read_text
from rlr.data.stream import PromptPass, PromptStream

SPLITS = ("train", "val", "test", "predict")

DISJOINT = (("train", "val"), ("train", "test"), ("train", "predict"), ("val", "test"))
"""The splits that must not share a prompt: what is measured on one would be known from the other."""


class PromptData(LightningDataModule, ABC):
    r"""Batches of prompts; a subclass says which.

    Args:
        batch_size: The samples :math:`B` a process takes for a batch.
        samples_per_prompt: The samples :math:`k` of one prompt, side by side in a training batch.
        evaluation_samples: The samples of each prompt in validation, test and prediction.
        seed: Decides the order of each training pass.
        shuffle: Whether to read training prompts in random order.
    """

    def __init__(
        self,
        batch_size: int = 4,
        samples_per_prompt: int = 1,
        evaluation_samples: int = 1,
        seed: int = 0,
        shuffle: bool = True,
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

    @abstractmethod
    def prompts(self, split: str) -> list[str]:
        """Returns the prompts of ``train``, ``val``, ``test`` or ``predict``; none if there are none."""

    def train_dataloader(self) -> PromptStream:
        """An endless, resumable stream; see :class:`~rlr.data.stream.PromptStream`."""
        prompts = self._required("train")
        rank, world = self._place()
        return PromptStream(prompts, self.batch_size, self.samples_per_prompt, self.seed, self.shuffle, rank, world)

    def val_dataloader(self) -> PromptPass | list[object]:
        """Every validation prompt once, or nothing."""
        prompts = self.prompts("val")
        return self._pass(prompts) if prompts else []

    def test_dataloader(self) -> PromptPass:
        """Every test prompt once."""
        return self._pass(self._required("test"))

    def predict_dataloader(self) -> PromptPass:
        """Every prompt to predict once."""
        return self._pass(self._required("predict"))

    def _pass(self, prompts: list[str]) -> PromptPass:
        return PromptPass(prompts, self.batch_size, self.evaluation_samples, *self._place())

    def _required(self, split: str) -> list[str]:
        prompts = self.prompts(split)
        if not prompts:
            raise ValueError(f"{type(self).__name__} has no prompts for {split!r}; {self.remedy(split)}")
        return prompts

    def remedy(self, split: str) -> str:
        """What to do where there are no prompts for a split."""
        return f"set data.init_args.{split}"

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


class Prompts(PromptData):
    r"""Prompts listed in the config.

    Args:
        train: Training prompts.
        val: Validation prompts.
        test: Test prompts, by default those of validation.
        predict: Prompts to predict, by default those of the test.
        batch_size: The samples :math:`B` a process takes for a batch.
        samples_per_prompt: The samples :math:`k` of one prompt, side by side in a training batch.
        evaluation_samples: The samples of each prompt in validation, test and prediction.
        seed: Decides the order of each training pass.
        shuffle: Whether to read training prompts in random order.
    """

    def __init__(
        self,
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
        predict: list[str] | None = None,
        batch_size: int = 4,
        samples_per_prompt: int = 1,
        evaluation_samples: int = 1,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        super().__init__(batch_size, samples_per_prompt, evaluation_samples, seed, shuffle)
        test = val if test is None else test
        predict = test if predict is None else predict
        self.lists = dict(zip(SPLITS, (train or [], val or [], test or [], predict or []), strict=True))

    def prompts(self, split: str) -> list[str]:
        return self.lists[split]


class PromptFile(PromptData):
    r"""Prompts from files: ``.txt`` (one a line), ``.jsonl`` (strings or objects) or ``.csv`` (with a header), in UTF-8.

    Blank lines, blanks around a prompt and repetitions are dropped. What is wrong with a file is said before the
    first step. Two splits may name one file; two files may have no prompt in common, but for those of ``val`` and
    ``test`` with that of ``predict``.

    Args:
        train: Training prompts.
        val: Validation prompts.
        test: Test prompts, by default those of validation.
        predict: Prompts to predict, by default those of the test.
        column: The key of ``.jsonl`` objects and the column of ``.csv`` files that holds the prompt.
        keep: Which prompts to keep, in every split; all of them by default.
        batch_size: The samples :math:`B` a process takes for a batch.
        samples_per_prompt: The samples :math:`k` of one prompt, side by side in a training batch.
        evaluation_samples: The samples of each prompt in validation, test and prediction.
        seed: Decides the order of each training pass.
        shuffle: Whether to read training prompts in random order.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        predict: str | None = None,
        column: str = "prompt",
        keep: PromptFilter | None = None,
        batch_size: int = 4,
        samples_per_prompt: int = 1,
        evaluation_samples: int = 1,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        super().__init__(batch_size, samples_per_prompt, evaluation_samples, seed, shuffle)
        test = test or val
        given = dict(zip(SPLITS, (train, val, test, predict or test), strict=True))
        paths = {split: Path(path) for split, path in given.items() if path}
        entries = {path: chosen(read(path, column), keep) for path in dict.fromkeys(paths.values())}
        for one, other in DISJOINT:
            if one in paths and other in paths and paths[one] != paths[other]:
                check_disjoint(entries[paths[one]], entries[paths[other]])
        self.lists = {split: texts(entries[path]) for split, path in paths.items()}

    def prompts(self, split: str) -> list[str]:
        return self.lists.get(split, [])


def read(path: Path, column: str = "prompt") -> list[Entry]:
    """Reads the prompts of a file, chosen by its suffix, each once.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of an unknown kind, is not UTF-8, has a line that holds no prompt, or none at all.
    """
    if path.suffix not in READERS:
        raise ValueError(f"{path} is no prompt file that can be read; use one of {', '.join(READERS)}")
    entries = clean(READERS[path.suffix](read_text(path), path, column))
    if not entries:
        raise ValueError(f"the prompt file {path} is empty; write at least one prompt into it")
    return entries


def _lines(text: str, path: Path, column: str) -> Iterator[Entry]:
    for number, line in enumerate(text.splitlines(), 1):
        yield Entry(line, path, number)


def _json_lines(text: str, path: Path, column: str) -> Iterator[Entry]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            place = f"line {number} of {path}"
            yield Entry(prompt_of(_json(line, place), place, column), path, number)


def _json(line: str, place: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{place} is not JSON ({error.msg} at column {error.colno}); write one object a line"
        ) from error


def _csv(text: str, path: Path, column: str) -> Iterator[Entry]:
    rows = csv.DictReader(text.splitlines(keepends=True))
    names = rows.fieldnames or []
    if column not in names:
        raise ValueError(
            f"{path} has no column {column!r} but {', '.join(names) or 'none'}; name one of its own as column"
        )
    for row in rows:
        if None in row:
            raise ValueError(
                f"line {rows.line_num} of {path} has more fields than there are columns; put a prompt with commas in quotes"
            )
        yield Entry(row[column] or "", path, rows.line_num)


READERS: dict[str, Callable[[str, Path, str], Iterator[Entry]]] = {
    ".txt": _lines,
    ".jsonl": _json_lines,
    ".csv": _csv,
}
