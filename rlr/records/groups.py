"""Groups of runs that differ only in their seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from rlr.records.record import Record

PLACES = ("trainer.default_root_dir", "trainer.logger", "trainer.enable_progress_bar")
"""Settings of where a run is written and what it prints, which do not make it another run."""


@dataclass(frozen=True)
class Group:
    """Runs of the same settings.

    Args:
        name: What it is called.
        records: The runs, one for each seed.
    """

    name: str
    records: Sequence[Record]


def flat(config: Any, place: str = "") -> dict[str, Any]:
    """Returns the settings of a config by their short dotted names, without ``init_args`` and ``class_path``."""
    return dict(_flat(config, place))


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            inner = place if key in ("init_args", "class_path") and place else f"{place}.{key}".lstrip(".")
            yield from _flat(item, inner)
    elif isinstance(value, list):
        for k, item in enumerate(value):
            yield from _flat(item, f"{place}[{k}]")
    else:
        yield place, value


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a config that make a run what it is: all but seeds and places."""
    return {name: item for name, item in flat(config).items() if not _seed(name) and not name.startswith(PLACES)}


def _seed(name: str) -> bool:
    return name == "seed_everything" or name.rpartition(".")[2] == "seed"


def grouped(records: Sequence[Record]) -> list[Group]:
    """Returns the groups of runs, in the order in which their first runs are given; a run without a config stays by itself."""
    parts: dict[str, list[Record]] = {}
    for record in records:
        key = (
            repr(sorted(settings(record.config).items(), key=lambda item: item[0]))
            if record.config
            else str(record.folder)
        )
        parts.setdefault(key, []).append(record)
    names = [_name(members) for members in parts.values()]
    unique = [
        name if names.count(name) == 1 else f"{name} ({members[0].folder})"
        for name, members in zip(names, parts.values(), strict=True)
    ]
    return [Group(name, members) for name, members in zip(unique, parts.values(), strict=True)]


def _name(records: Sequence[Record]) -> str:
    """Returns the name of a run, or what the names of several have in common."""
    names = [record.name for record in records]
    if len(names) == 1:
        return names[0]
    signs = takewhile(lambda signs: len(set(signs)) == 1, zip(*names, strict=False))
    common = "".join(first for first, *_ in signs).rstrip("-_. ")
    for ending in ("-seed", "_seed", ".seed", "seed"):
        common = common.removesuffix(ending)
    return common or names[0]


def differing(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Returns the settings in which groups differ, each with its value in every group."""
    found = [settings(group.records[0].config) for group in groups]
    names = dict.fromkeys(name for one in found for name in one)
    table = {name: [_text(one.get(name)) for one in found] for name in names}
    return {name: texts for name, texts in table.items() if len(set(texts)) > 1}


def _text(value: Any) -> str:
    if isinstance(value, str) and value.startswith("rlr."):
        return value.rpartition(".")[2]
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
