"""The files of a run as one object."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlr.io.config_files import parse_config
from rlr.io.csv_file import read_csv
from rlr.io.json_file import read_json
from rlr.io.shape import NUMBER, Is, Shape, check_shape
from rlr.records.series import Series

CONFIG, METRICS, FACTS, HISTORY, SAMPLES = ("config.yaml", "metrics.csv", "run.json", "history.csv", "samples.json")
"""The files that a record is made of: of the run, and of each evaluation and each set of samples."""
UPDATES = "updates"
"""The column of ``metrics.csv`` that says how many updates a row has seen."""


REMEDY = "restore the file, or remove it"
SCALAR = (str, bool, None, NUMBER)
ROWS = Is(
    "rows of one length, of numbers or null",
    lambda found: (
        isinstance(found, list)
        and all(isinstance(row, list) and len(row) == len(found[0]) for row in found)
        and all(number is None or NUMBER.fits(number) for row in found for number in row)
    ),
)
VERSIONS = {str: SCALAR}
SETTINGS: Shape = {"trainer": (None, {"max_steps": (None, NUMBER)})}
"""What the config of a run must look like."""
COMMANDS: Shape = {"commands": [{"command": str, "line": str, "summary": SCALAR, "versions": VERSIONS}]}
"""What ``run.json`` must look like."""
RESULTS: Shape = {
    "sets": {
        str: {
            "results": {str: {str: (None, NUMBER)}},
            "scores": {str: ROWS},
            "base_scores": {str: ROWS},
            "prompts": [str],
        }
    },
    "update": (None, NUMBER),
    "versions": VERSIONS,
}
"""What ``results.json`` must look like."""
CARD: Shape = {"prompt": str, "files": {str: str}, "scores": {str: {str: (None, NUMBER)}}, "seed": SCALAR}
SHEET: Shape = {"set": str, "update": (None, NUMBER), "metrics": [str], "samples": [CARD]}
"""What ``samples.json`` must look like."""
MEDIA = (".png", ".mp4")
"""The suffixes of the files of samples."""

TRAINING = "training prompts"
"""What evaluations call a run's own training prompts; all other sets of prompts are held out."""


@dataclass(frozen=True)
class Record:
    """The folder of a run.

    A file that does not exist is read as one that holds nothing: the run may have been interrupted, or be of another kind.

    Args:
        folder: The folder.
    """

    folder: Path

    @staticmethod
    def is_one(folder: Path) -> bool:
        """Whether a folder holds a run: its config, its metrics or results of it."""
        evaluations = ("evaluation/test/results.json", "evaluation/fit/results.json")
        return any((folder / name).is_file() for name in (CONFIG, METRICS, *evaluations))

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config of the ``fit``."""
        file = self.folder / CONFIG
        found = parse_config(self.config_text, str(file)) or {}
        check_shape(found, SETTINGS, str(file), REMEDY)
        return dict(found)

    @cached_property
    def config_text(self) -> str:
        """The config as it is written."""
        file = self.folder / CONFIG
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the commands on the folder have recorded: command, date, device, commit, versions."""
        return _json(self.folder / FACTS, COMMANDS)

    @cached_property
    def commands(self) -> list[dict[str, Any]]:
        """The facts of each command, in order."""
        return list(self.facts.get("commands", []))

    @property
    def planned(self) -> int:
        """The number of updates that the config asks for; -1 where it sets none."""
        steps = (self.config.get("trainer") or {}).get("max_steps")
        return int(steps) if steps and math.isfinite(steps) else -1

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """The rows of ``metrics.csv``, each with the number of updates that the weights had seen."""
        rows, updates = [], 0.0
        for row in read_csv(self.folder / METRICS):
            known = {name: number for name, text in row.items() if name and (number := _number(text)) is not None}
            if UPDATES in known:
                updates = known[UPDATES]
            elif "reward/mean" in known or "samples" in known:
                # of a module that does not state its updates, the batches
                updates = known.get("step", updates) + 1
            rows.append({**known, UPDATES: updates})
        return rows

    @cached_property
    def keys(self) -> list[str]:
        """The names of all series of ``metrics.csv``."""
        return sorted({name for row in self.rows for name in row} - {"step", "epoch", UPDATES})

    def series(self, name: str) -> Series:
        """Returns the values of a column against the updates."""
        return Series.of((row[UPDATES], row[name]) for row in self.rows if name in row)

    @cached_property
    def updates(self) -> int:
        """The number of updates."""
        seen = [row[UPDATES] for row in self.rows]
        stated = (float(result.get("update") or 0) for result in self.results.values())
        return int(max(filter(math.isfinite, [*seen, *stated]), default=0))

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """The latest evaluation of each stage, ``fit`` and ``test``, as ``results.json`` holds it."""
        files = {stage: self.folder / "evaluation" / stage / "results.json" for stage in ("test", "fit")}
        found = {stage: read_results(file) for stage, file in files.items() if file.is_file()}
        return {stage: value for stage, value in found.items() if value.get("sets")}

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """All evaluations of the ``fit``, a row for each measurement, as ``history.csv`` holds them."""
        return read_csv(self.folder / "evaluation" / "fit" / HISTORY)

    @cached_property
    def measured(self) -> dict[tuple[str, str], list[dict[str, str]]]:
        """The rows of :attr:`history` of each measurement, by the set of prompts and its label."""
        found: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in self.history:
            update = _number(row.get("update"))
            # where a row without its update belongs is not known
            if update is not None and math.isfinite(update):
                found.setdefault((row.get("prompts", ""), row.get("measurement", "")), []).append(row)
        return found

    @cached_property
    def sheets(self) -> list["Sheet"]:
        """The sets of samples, those of a ``test`` first."""
        folder = self.folder / "samples"
        sheets = [
            Sheet(file.parent, _json(file, SHEET), "test" if "test" in file.relative_to(folder).parts else "fit")
            for file in sorted(folder.glob(f"**/{SAMPLES}"))
        ]
        return sorted((sheet for sheet in sheets if sheet.cards), key=lambda sheet: sheet.stage != "test")

    @cached_property
    def reward(self) -> str:
        """What the trained reward is called."""
        names = [name.removeprefix("reward/") for name in self.keys if name.startswith("reward/")]
        return next((name for name in names if name not in ("mean", "std")), "reward")

    @cached_property
    def spread(self) -> float | None:
        """The median of the reward's standard deviation between the samples of a round."""
        found = sorted(value for value in self.series("reward/std").values if math.isfinite(value))
        return found[len(found) // 2] or None if found else None

    def has(self, name: str) -> bool:
        """Whether a file or a folder is there that holds something."""
        path = self.folder / name
        return path.is_file() or (path.is_dir() and any(path.iterdir()))


@dataclass(frozen=True)
class Sheet:
    """Samples of one set of prompts, of the base model and of the present one.

    Args:
        folder: The folder of the files.
        content: What ``samples.json`` holds.
        stage: The command that has made them, ``fit`` or ``test``.
    """

    folder: Path
    content: Mapping[str, Any]
    stage: str = "fit"

    @property
    def set(self) -> str:
        """The name of the set of prompts."""
        return str(self.content.get("set", ""))

    @property
    def update(self) -> int:
        """After how many updates."""
        update = self.content.get("update") or 0
        return int(update) if math.isfinite(update) else 0

    def file(self, card: Mapping[str, Any], model: str) -> Path | None:
        """Returns the file of a sample of ``base`` or ``aligned``; None where it does not exist, or is outside of the folder."""
        name = card["files"].get(model)
        file = self.folder / f"{name}{self.content.get('suffix', '.png')}"
        # what is in the folder is shown to whoever sees the page
        inside = name and "\0" not in file.name and file.resolve().is_relative_to(self.folder.resolve())
        return file if inside and file.suffix in MEDIA and file.is_file() else None

    @property
    def labels(self) -> list[str]:
        """The measurements that each sample has."""
        return [str(label) for label in self.content.get("metrics", [])]

    @property
    def cards(self) -> Sequence[Mapping[str, Any]]:
        """The prompts with their samples."""
        return [card for card in self.content.get("samples", []) if card.get("files")]


def read_results(file: Path) -> dict[str, Any]:
    """Returns what a ``results.json`` holds.

    Raises:
        ValueError: If it is damaged.
    """
    return _json(file, RESULTS)


def _json(file: Path, shape: Shape) -> dict[str, Any]:
    """Returns the content of a file of one shape; nothing where there is no such file."""
    found = read_json(file) if file.is_file() else {}
    check_shape(found, shape, str(file), REMEDY)
    return dict(found)


def _number(text: str | None) -> float | None:
    """Returns the number that a cell holds; None for an empty one and for text."""
    try:
        return float(text) if text else None
    except ValueError:
        return None
