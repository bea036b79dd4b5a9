"""Pick-a-Pic: prompts that people typed into a web page, Kirstain et al. (2023)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlr.data.cleaning import Entry, clean, drop_shared, texts
from rlr.data.files import locate
from rlr.data.parquet import parquet_column
from rlr.data.prompts import PromptData

COLUMN = "caption"
"""The column of the prompt; the others, images among them, are not read."""

PUBLISHED = {"train": "train", "val": "validation_unique", "test": "test_unique"}
"""The published split of each of ours; the 500 prompts of a ``_unique`` split are distinct."""

SHARD = re.compile(r"-(\d+)-of-(\d+)")
"""Number and count in a name such as ``train-00000-of-00003-0a1b.parquet``."""


class PickAPic(PromptData):
    r"""The captions of Pick-a-Pic, each once, in the order of their first appearance.

    No prompt is in two splits: those of ``test_unique`` are dropped from ``validation_unique``, and those of both from
    ``train``. Prediction takes the prompts of the test. The captions are as people wrote them, and many are not safe
    for work: see ``keep``.

    Args:
        source: A hub id, or a folder that holds ``train-*.parquet``, ``validation_unique-*.parquet`` and
            ``test_unique-*.parquet``, directly or in ``data/``. Versions 1 and 2 are ``yuvalkirstain/pickapic_v1``
            and ``_v2``; without images (``_no_images``) they take 0.2 and 0.3 GB, with them 190 and 335 GB.
        **loader: The arguments of :class:`~rlr.data.prompts.PromptData`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or has no text under ``caption``.
    """

    def __init__(self, source: str = "yuvalkirstain/pickapic_v1_no_images", **loader: Any) -> None:
        super().__init__(**loader)
        folder = locate(source, [f"data/{name}-*.parquet" for name in PUBLISHED.values()])
        train, val, test = (clean(captions(shards(folder, name))) for name in PUBLISHED.values())
        val = drop_shared(val, test)
        train = drop_shared(train, [*val, *test])
        self.lists = {"train": texts(train), "val": texts(val), "test": texts(test), "predict": texts(test)}

    def prompts(self, split: str) -> list[str]:
        return self.lists[split]


def shards(folder: Path, name: str) -> list[Path]:
    """Returns the files of the published split ``name``, in order.

    Raises:
        FileNotFoundError: If no such files exist, or fewer or more than their names say.
    """
    found = sorted(path for place in (folder, folder / "data") for path in place.glob(f"{name}-*.parquet"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no {name}-*.parquet, nor does data/ in it; download that split")
    marks = [mark for path in found if (mark := SHARD.search(path.name))]
    numbers = [int(mark[1]) for mark in marks]
    if marks and numbers != list(range(int(marks[0][2]))):
        raise FileNotFoundError(
            f"{found[0].parent} holds shards {', '.join(map(str, numbers))} of {name}, and the name of the first says "
            f"that there are {int(marks[0][2])}, from 0 on; make them complete, each once"
        )
    return found


def captions(paths: list[Path]) -> Iterator[Entry]:
    """Reads the captions of parquet files, one after the other."""
    for path in paths:
        yield from parquet_column(path, COLUMN, "use the files of Pick-a-Pic")
