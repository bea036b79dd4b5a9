"""What the authors' programs computed, and which test reads which of it.

A test declares what it reads, ``@reads(case, *keys)``, and gets it by the fixture ``vectors``: of anything else it has nothing,
and it fails if it leaves a part unread. ``test_vectors.py`` finds that together the tests declare all there is.
"""

import json
import lzma
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from tests.rewards.packing import unpack

FIXTURES = Path(__file__).parents[1] / "fixtures" / "rewards"
Test = TypeVar("Test", bound=Callable[..., Any])


@cache
def tensors(case: str) -> dict[str, Tensor]:
    return unpack((FIXTURES / f"{case}.tensors.xz").read_bytes())


@cache
def documents(name: str) -> dict[str, Any]:
    """The contents of JSON files by their names."""
    return json.loads(lzma.decompress((FIXTURES / f"{name}.json.xz").read_bytes()))


def facts(case: str) -> dict[str, Any]:
    """Architecture and prompts of a case."""
    return documents("facts")[case]


def load(case: str) -> Mapping[str, Any]:
    """The vectors of a case: the tensors of its file, or of ``lists`` the lists."""
    return documents(case) if case == "lists" else tensors(case)


def reads(case: str, *keys: str) -> Callable[[Test], Test]:
    """Declares what a test reads.

    Args:
        case: The name of the file.
        keys: Keys in it; ``{name}`` stands for a parameter of the test, and ``*`` for whatever there is.
    """

    def declare(test: Test) -> Test:
        test.reads = (case, keys)  # type: ignore[attr-defined]
        return test

    return declare


def named(case: str, keys: tuple[str, ...], parameters: Mapping[str, Any]) -> set[str]:
    """The keys that a declaration names, with the parameters of one run of its test."""
    found: set[str] = set()
    for key in keys:
        pattern = key.format_map(parameters)
        matching = {
            known for known in load(case) if known == pattern or ("*" in pattern and fnmatchcase(known, pattern))
        }
        if not matching:
            raise LookupError(f"{case} holds no {pattern}; give {', '.join(sorted(load(case))[:3])}, …")
        found |= matching
    return found


def declared(test: Callable[..., Any]) -> set[str]:
    """The keys that a test reads, with all its parameters."""
    case, keys = test.reads  # type: ignore[attr-defined]
    return {key for parameters in _runs(test) for key in named(case, keys, parameters)}


def _runs(test: Callable[..., Any]) -> Iterator[Mapping[str, Any]]:
    marks = [mark.args for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    for values in product(*(values for _, values in marks)):
        yield ChainMap(*(_assigned(names, value) for (names, _), value in zip(marks, values, strict=True)))


def _assigned(names: str | tuple[str, ...], values: Any) -> dict[str, Any]:
    names = tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else names
    return dict(zip(names, (values,) if len(names) == 1 else values, strict=True))


class Reading(Mapping[str, Any]):
    """Vectors that remember which of them were read.

    Args:
        vectors: All of the case.
        keys: Those that may be read, and must.
    """

    def __init__(self, vectors: Mapping[str, Any], keys: set[str]) -> None:
        self._vectors, self._keys = vectors, keys
        self.unread = set(keys)

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(f"{key} is not declared; add it to the test's @reads")
        self.unread.discard(key)
        return self._vectors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._keys))

    def __len__(self) -> int:
        return len(self._keys)
