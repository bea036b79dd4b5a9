"""Configs with their parts in their places, and a few of them that have between them everything that all of them name."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from rlr.cli.config_inheritance import with_bases

NETWORKS = ("PickScore", "HPSv2", "Aesthetic", "ImageReward")
"""Rewards whose weights have to be fetched; a small random one takes their place."""
CHEAP = ("tiny", "sd14")
"""The models whose steps cost least."""
Piece = tuple[Any, ...]


def filled_in(path: Path) -> dict[str, Any]:
    """A config with its parts in their places."""

    def fill(value: Any, folder: Path) -> Any:
        if isinstance(value, dict):
            return {key: fill(inner, folder) for key, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner, folder) for inner in value]
        # those of a base are absolute; other texts that end so are files elsewhere
        if isinstance(value, str) and value.endswith(".yaml") and (folder / value).parent.name == "parts":
            part = folder / value
            return fill(with_bases(yaml.safe_load(part.read_text()), part.parent), part.parent)
        return value

    return fill(with_bases(yaml.safe_load(path.read_text()), path.parent), path.parent)


def classes(value: Any) -> set[str]:
    """The classes that a config names; those that one small network stands for are one."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = set().union(*map(classes, inner))
    return found | {label(value)} if isinstance(value, dict) and "class_path" in value else found


def label(value: Any) -> Any:
    """What a config says with a value: a class, a name or a switch, and of numbers, texts and paths the kind alone."""
    said = value.get("class_path", value) if isinstance(value, dict) else value
    if isinstance(said, bool):
        return said
    name = said.rpartition(".")[2] if isinstance(said, str) else ""
    if name in NETWORKS:
        return "a network"
    return name if name.isidentifier() else type(said).__name__


def pieces(value: Any, owner: str) -> set[Piece]:
    """Every argument that a config gives to a class, or to a group without one, with what it says."""
    if isinstance(value, list):
        return set().union(*(pieces(inner, owner) for inner in value))
    if not isinstance(value, dict):
        return set()
    if "class_path" in value:
        owner = label(value)
        return {(owner,)} | pieces(value.get("init_args") or {}, owner)
    further = [pieces(inner, owner if isinstance(inner, list) else str(key)) for key, inner in value.items()]
    return {(owner, key, label(inner)) for key, inner in value.items()}.union(*further)


@cache
def said_by(path: Path) -> frozenset[Piece]:
    """What an alignment says of its model and of its data, and whether it makes images or videos."""
    config = filled_in(path)
    found = pieces(config["model"], "model") | pieces({"data": config["data"]}, "data")
    return frozenset((path.parent.name, *piece) for piece in found)


def cover(paths: Sequence[Path]) -> list[Path]:
    """Alignments that say between them all that all say: always the one that adds most, and of such the cheapest."""
    left, chosen = set().union(*map(said_by, paths)), []
    while left:
        best = max(paths, key=lambda path: (len(said_by(path) & left), path.name.startswith(CHEAP)))
        chosen.append(best)
        left -= said_by(best)
    return chosen
