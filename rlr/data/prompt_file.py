"""Prompts in files of the user's own."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from rlr.data.cleaning import Entry, check_disjoint, clean, texts
from rlr.data.files import csv_rows, hub_files, json_lines, prompt_of, read_text, text_lines
from rlr.data.parquet import parquet_column
from rlr.data.prompts import PromptData
from rlr.io.text import quote

DISJOINT = (("train", "val"), ("train", "test"), ("train", "predict"), ("val", "test"))
"""The splits whose files must not share a prompt: a measurement on one would be known from the other."""


class PromptFile(PromptData):
    r"""Prompts from files: ``.txt`` (one a line), ``.jsonl`` (strings or objects), ``.csv`` (with a header) or ``.parquet``.

    A file is a path, or an address of the hub such as ``hf://datasets/OWNER/NAME/data/train-*.parquet``. Texts are in UTF-8.
    Blank lines, blanks around a prompt and repetitions are dropped. Files are checked before the first step. Two splits
    may name the same file; two files must not share a prompt, in whatever case, except that ``predict`` may share
    prompts with ``val`` and ``test``.

    Args:
        train: The file of the training prompts.
        val: The file of the validation prompts.
        test: The file of the test prompts, by default that of validation.
        predict: The file of the prompts to predict, by default that of the test.
        column: The key of ``.jsonl`` objects and the column of ``.csv`` and ``.parquet`` files that holds the prompt.
        **loader: The arguments of :class:`~rlr.data.prompts.PromptData`.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If :func:`read` cannot read a file, or two files share a prompt.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        predict: str | None = None,
        column: str = "prompt",
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        test = test or val
        given = {"train": train, "val": val, "test": test, "predict": predict or test}
        paths = {split: path for split, path in given.items() if path}
        entries = {path: _of_source(path, column) for path in dict.fromkeys(paths.values())}
        for one, other in DISJOINT:
            if one in paths and other in paths and paths[one] != paths[other]:
                check_disjoint(entries[paths[one]], entries[paths[other]])
        self.lists = {split: texts(entries[path]) for split, path in paths.items()}

    def prompts(self, split: str) -> list[str]:
        return self.lists.get(split, [])


def _of_source(source: str, column: str) -> list[Entry]:
    """Reads a file, or the files of an address of the hub as one."""
    files = hub_files(source)
    if files is None:
        return read(Path(source).expanduser(), column)
    return clean(chain.from_iterable(read(file, column) for file in files))


def read(path: Path, column: str = "prompt") -> list[Entry]:
    """Reads the prompts of a file, whose format follows from its suffix, each prompt once.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file has another suffix, is not UTF-8, has a line that is not a prompt, or has no prompts.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path}: expected a prompt file with the suffix {', '.join(READERS)}, found {path.suffix or 'none'}; set the path of "
            "such a file, or an address such as hf://datasets/OWNER/NAME/FILE"
        )
    entries = clean(reader(path, column))
    if not entries:
        raise ValueError(f"the prompt file {path} is empty; write at least one prompt into it")
    return entries


def _text(path: Path, column: str) -> Iterator[Entry]:
    for number, line in text_lines(read_text(path), path):
        yield Entry(line, path, number)


def _json_lines(path: Path, column: str) -> Iterator[Entry]:
    for number, value in json_lines(read_text(path), path):
        yield Entry(prompt_of(value, f"line {number} of {path}", column), path, number)


def _csv(path: Path, column: str) -> Iterator[Entry]:
    entries = [Entry(row[column], path, number) for number, row in csv_rows(read_text(path), path, column)]
    broken = [entry for entry in entries if "\n" in entry.prompt.strip()]
    if broken:
        # a quote left open in one row may be closed by an inch mark in a later one, and this is valid CSV
        rank_zero_warn(
            f"{len(broken)} prompts of {path} contain line breaks, first in line {broken[0].number}: "
            f"{quote(broken[0].prompt)}; if these are several prompts, close the quote of the first"
        )
    return iter(entries)


def _parquet(path: Path, column: str) -> Iterator[Entry]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no prompt file {path} (looked for at {path.absolute()}); check the path")
    return parquet_column(path, column)


READERS: dict[str, Callable[[Path, str], Iterator[Entry]]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
