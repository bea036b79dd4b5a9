"""Human Preference Dataset v2: prompts of DiffusionDB and COCO, and a benchmark in four styles, Wu et al. (2023)."""

from collections.abc import Iterable, Iterator
from itertools import chain
from operator import methodcaller
from pathlib import Path
from typing import Any

from rlr.data.cleaning import Entry, PromptFilter, chosen, clean, drop_shared, texts
from rlr.data.files import locate, prompt_of, read_items
from rlr.data.prompts import PromptData

STYLES = ("anime", "concept-art", "paintings", "photo")
"""The styles of the benchmark, in the order of its tables."""


class HPDv2(PromptData):
    r"""Trains on the prompts of ``train.json``, each once, and evaluates on the benchmark, 800 prompts a style.

    Training prompts that the benchmark has, too, are dropped. The benchmark itself is taken as published, in its order
    and with its repetitions, if it has any: scores are averages over all 800 of a style. Validation, test and
    prediction are the same. ``style_of`` says the style of each prompt of the evaluation, for tables.

    Args:
        train: A hub id, or a folder that holds ``train.json`` (0.1 GB); none to evaluate only.
        benchmark: A hub id, or a folder that holds ``anime.json`` and so on, themselves or in ``benchmark/``; none to
            train only.
        styles: The styles to evaluate, in this order; all four by default.
        per_style: The prompts of each style, the first ones of its file; all of them by default.
        keep: Which prompts to keep, in every split; all of them by default. With a filter the benchmark is another
            one, whose scores are not those of the published tables.
        batch_size: The samples :math:`B` a process takes for a batch.
        samples_per_prompt: The samples :math:`k` of one prompt, side by side in a training batch.
        evaluation_samples: The samples of each prompt in validation, test and prediction.
        seed: Decides the order of each training pass.
        shuffle: Whether to read training prompts in random order.
    """

    def __init__(
        self,
        train: str | None = "ymhao/HPDv2",
        benchmark: str | None = "zhwang/HPDv2",
        styles: tuple[str, ...] = STYLES,
        per_style: int | None = None,
        keep: PromptFilter | None = None,
        batch_size: int = 4,
        samples_per_prompt: int = 1,
        evaluation_samples: int = 1,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        super().__init__(batch_size, samples_per_prompt, evaluation_samples, seed, shuffle)
        _check(styles, per_style)
        published = _benchmark(benchmark) if benchmark else {}
        # held out whole, whatever part of it is evaluated here
        self.training = texts(drop_shared(_training(train, keep), list(chain(*published.values())))) if train else []
        benchmarks = {style: texts(chosen(published.get(style, [])[:per_style], keep)) for style in styles}
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


def _training(source: str, keep: PromptFilter | None) -> list[Entry]:
    path = locate(source, ["train.json"]) / "train.json"
    # all else in an object is dropped while reading: half a million of them would take half a gigabyte
    return clean(_entries(path, read_items(path, methodcaller("get", "prompt"))), keep)


def _benchmark(source: str) -> dict[str, list[Entry]]:
    folder = locate(source, [f"benchmark/{style}.json" for style in STYLES])
    folder = folder / "benchmark" if (folder / "benchmark").is_dir() else folder
    return {style: list(_entries(path, read_items(path))) for style in STYLES for path in [folder / f"{style}.json"]}


def _entries(path: Path, items: list[Any]) -> Iterator[Entry]:
    for number, item in enumerate(items, 1):
        yield Entry(prompt_of(item, f"item {number} of {path}", "prompt"), path, number, "item")
