"""Human Preference Dataset v2: prompts of DiffusionDB and COCO, and a benchmark in four styles, Wu et al. (2023)."""

from collections.abc import Iterable, Iterator
from itertools import chain
from operator import methodcaller
from pathlib import Path
from typing import Any

from rlr.data.cleaning import Entry, clean, drop_shared, texts
from rlr.data.files import locate, prompt_of, read_items
from rlr.data.prompts import PromptData

STYLES = ("anime", "concept-art", "paintings", "photo")
"""The styles of the benchmark, in the order of its tables."""


class HPDv2(PromptData):
    r"""Trains on the prompts of ``train.json``, each once, and evaluates on the benchmark, 800 prompts a style.

    Training prompts that are in the benchmark, too, are dropped. The benchmark itself is read as published, in its order
    and with its repetitions, if any: scores are averages over all 800 prompts of a style. Validation, test and prediction
    are the same. ``style_of`` maps each prompt of the evaluation to its style, for tables.

    Args:
        train: A hub id, or a folder that holds ``train.json`` (0.1 GB); None to evaluate only.
        benchmark: A hub id, or a folder that holds ``anime.json`` and so on, directly or in ``benchmark/``; None to
            train only.
        styles: The styles to evaluate, in this order; all four by default.
        per_style: How many prompts of each style to read, from the start of its file; all of them by default.
        **loader: The arguments of :class:`~rlr.data.prompts.PromptData`. With ``keep`` the benchmark is another one,
            whose scores are not those of the published tables.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged or of another layout, or a style or ``per_style`` does not exist.
    """

    def __init__(
        self,
        train: str | None = "ymhao/HPDv2",
        benchmark: str | None = "zhwang/HPDv2",
        styles: tuple[str, ...] = STYLES,
        per_style: int | None = None,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        _check(styles, per_style)
        published = _benchmark(benchmark) if benchmark else {}
        # the whole benchmark is held out, whatever part of it is evaluated here
        self.training = texts(drop_shared(_training(train), list(chain(*published.values())))) if train else []
        benchmarks = {style: texts(published.get(style, [])[:per_style]) for style in styles}
        self.evaluation = list(chain(*benchmarks.values()))
        self.style_of: dict[str, str] = {}
        for style, prompts in benchmarks.items():
            for prompt in prompts:
                self.style_of.setdefault(prompt, style)

    def prompts(self, split: str) -> list[str]:
        return self.training if split == "train" else self.evaluation

    def remedy(self, split: str) -> str:
        return f"set data.init_args.{'train' if split == 'train' else 'benchmark'}"


def _check(styles: Iterable[str], per_style: int | None) -> None:
    for style in styles:
        if style not in STYLES:
            raise ValueError(f"HPDv2 has no style {style!r}; there are {', '.join(STYLES)}")
    if per_style is not None and per_style < 1:
        raise ValueError(f"HPDv2 evaluates 1 or more prompts of each style, and per_style={per_style} was given")


def _training(source: str) -> list[Entry]:
    path = locate(source, ["train.json"]) / "train.json"
    # all else in an object is dropped while reading: half a million of them would take half a gigabyte
    return clean(_entries(path, read_items(path, methodcaller("get", "prompt"))))


def _benchmark(source: str) -> dict[str, list[Entry]]:
    folder = locate(source, [f"benchmark/{style}.json" for style in STYLES])
    folder = folder / "benchmark" if (folder / "benchmark").is_dir() else folder
    return {style: list(_entries(path, read_items(path))) for style in STYLES for path in [folder / f"{style}.json"]}


def _entries(path: Path, items: list[Any]) -> Iterator[Entry]:
    for number, item in enumerate(items, 1):
        yield Entry(prompt_of(item, f"item {number} of {path}", "prompt"), path, number, "item")
