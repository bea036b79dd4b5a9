"""What an evaluation leaves behind: the table, and a file with everything that was measured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlr.evaluation import facts
from rlr.evaluation.vbench import table, weights
from rlr.evaluation.vbench.dimensions import DIMENSIONS, SIX
from rlr.evaluation.vbench.scoring import Judge, Say, Score, package, silent
from rlr.evaluation.vbench.videos import VideoSet
from rlr.io.atomic import write_whole


@dataclass(frozen=True)
class Report:
    """The scores of a set of clips.

    Args:
        name: What the row is called.
        scores: By the dimension's name.
        facts: What one needs to repeat it, as plain data.
    """

    name: str
    scores: Mapping[str, Score]
    facts: Mapping[str, Any]

    @property
    def values(self) -> dict[str, float]:
        """The scores as VBench gives them."""
        return {name: score.value for name, score in self.scores.items()}

    def metrics(self) -> dict[str, float]:
        """Returns the numbers for a logger, in percent, such as ``vbench/dynamic_degree``."""
        average = table.weighted_average(self.values)
        numbers = {name: 100 * value for name, value in self.values.items()}
        numbers |= {} if average is None else {"weighted_average": 100 * average}
        return {f"vbench/{name}": number for name, number in numbers.items()}

    def text(self) -> str:
        """Returns the table beside the paper's rows, and how its average is made."""
        return table.text(self.name, self.values)

    def json(self) -> bytes:
        """Returns everything, the number of every clip included, as the content of a JSON file."""
        content = {
            "name": self.name,
            "percent": {name: 100 * value for name, value in self.values.items()},
            "weighted_average": self.metrics().get("vbench/weighted_average"),
            "weights": {dimension.name: dimension.weight for dimension in SIX},
            "formula": table.formula(),
            "paper": {method: list(row) for method, row in table.PAPER.items()},
            **self.facts,
            "clips": {name: dict(score.clips) for name, score in self.scores.items()},
        }
        return f"{json.dumps(content, indent=1, ensure_ascii=False)}\n".encode()

    def save(self, folder: Path) -> list[Path]:
        """Writes ``results.json`` and ``table.md``, and returns their paths."""
        contents = {"results.json": self.json(), "table.md": f"{self.text()}\n".encode()}
        for name, content in contents.items():
            write_whole(folder / name, content)
        return [folder / name for name in contents]


def evaluate(
    name: str, videos: VideoSet, folder: Path, out: Path, judge: Judge, further: Mapping[str, Any], say: Say = silent
) -> Report:
    """Judges the clips in a folder.

    Args:
        name: What the row is called; where the clips are not the whole set, it says so besides.
        videos: What is judged of which clips.
        folder: The clips.
        out: Where scores are kept, in ``scores``.
        judge: The judge.
        further: More facts.
        say: Told how far the work has come.
    """
    entries = videos.entries(folder)
    scores = judge.score(videos.judged, entries, out / "scores", say)
    note = videos.describe(entries)
    known = {
        **further,
        "folder": str(folder),
        "prompts": len(entries),
        "videos": sum(len(entry.videos) for entry in entries),
        "note": note or None,
        "files": weights.digests([DIMENSIONS[key] for key in scores], judge.weights),
        "device": judge.device,
        "date": facts.now(),
        "commit": facts.commit(),
        "versions": {**facts.versions(), "vbench": package()},
    }
    return Report(f"{name} ({note})" if note else name, scores, known)
