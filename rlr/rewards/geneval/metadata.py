"""What GenEval's prompts ask for, read from the benchmark's own file, one JSON object a line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlr.io.text import check_text, quote
from rlr.rewards.geneval.names import COLORS, NAMES, RELATIONS


@dataclass(frozen=True)
class Clause:
    """Objects of one kind.

    Args:
        name: Their name, one of :data:`~rlr.rewards.geneval.names.NAMES`.
        count: How many, at least 1.
        color: Their color, if any is asked for.
        position: Where they are, and relative to the objects of which earlier clause: ``("left of", 0)``.
    """

    name: str
    count: int
    color: str | None = None
    position: tuple[str, int] | None = None


@dataclass(frozen=True)
class Check:
    """What a prompt asks for.

    Args:
        prompt: The prompt.
        tag: The task, such as ``counting`` or ``color_attr``.
        include: The objects that must be there.
        exclude: The objects of which there must be fewer than the count.
    """

    prompt: str
    tag: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...] = ()


def read_checks(paths: Sequence[str]) -> dict[str, Check]:
    """Returns what each prompt of some files asks for.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a line is not an object of the benchmark's format, or a prompt asks for two different things.
    """
    checks: dict[str, Check] = {}
    for path in paths:
        for place, check in _read(Path(path).expanduser()):
            if checks.setdefault(check.prompt, check) != check:
                raise ValueError(
                    f"{place}: expected the prompt {quote(check.prompt)} to ask for what an earlier line says, found something "
                    "else; remove one of the two"
                )
    if not checks:
        raise ValueError(
            f"GenEval.metadata: expected at least one prompt, found none in {list(paths)}; set it to the benchmark's "
            "evaluation_metadata.jsonl"
        )
    return checks


def _read(path: Path) -> Iterator[tuple[str, Check]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path}; set GenEval.metadata to the benchmark's evaluation_metadata.jsonl, from the folder "
            "prompts of its repository"
        )
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in UTF-8, found something else ({error}); download the file again"
        ) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}, line {number}", _parse(line, f"{path}, line {number}")


def _parse(line: str, place: str) -> Check:
    try:
        found = json.loads(line)
        check = Check(
            check_text(found["prompt"].strip(), "the prompt"),
            found["tag"],
            tuple(_clause(clause, k) for k, clause in enumerate(found.get("include", []))),
            tuple(_clause(clause, 0) for clause in found.get("exclude", [])),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{place}: expected an object with tag, include and prompt as in the benchmark's file, found {quote(line)} "
            f"({error}); download the file again"
        ) from error
    return check


def _clause(found: Mapping[str, Any], place: int) -> Clause:
    name, count, color, position = found["class"], found["count"], found.get("color"), found.get("position")
    _expect(name in NAMES, "class", name, "one of the 80 names of the benchmark")
    _expect(isinstance(count, int) and count >= 1, "count", count, "an integer of at least 1")
    _expect(color is None or color in COLORS, "color", color, f"one of {', '.join(COLORS)}")
    if position is not None:
        relation, target = position
        _expect(relation in RELATIONS, "position", relation, f"one of {', '.join(RELATIONS)}")
        _expect(target in range(place), "position", target, "the number of an earlier clause")
        position = (relation, target)
    return Clause(name, count, color, position)


def _expect(met: bool, key: str, found: object, expected: str) -> None:
    if not met:
        raise ValueError(f"{key}: expected {expected}, got {found!r}")
