r"""Reports: the paper's Table 3 with one more row, and a file with everything that was measured.

The table holds six scores in percent and their weighted average on raw percentages,

.. math:: \frac{SC + BC + MS + \frac{1}{2} DD + AQ + IQ}{5.5}.

It is not the quality score of VBench's leaderboard, which rescales each dimension and counts temporal flickering as a seventh.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlr.evaluation import provenance
from rlr.evaluation.report import MISSING, Table
from rlr.evaluation.vbench import weights
from rlr.evaluation.vbench.dimensions import DIMENSIONS, SIX
from rlr.evaluation.vbench.scoring import Judge, Say, Score, package, silent
from rlr.evaluation.vbench.videos import VideoSet
from rlr.io.atomic import write_whole
from rlr.io.json_file import to_json

AVERAGE = "weighted_average"
HEAD = (*(dimension.title for dimension in SIX), "Weighted Average")
PAPER = {
    "VideoCrafter": (95.44, 96.52, 96.88, 53.46, 57.52, 66.77, 79.97),
    "Pika": (96.76, 98.95, 99.51, 37.22, 63.15, 62.33, 79.87),
    "Gen-2": (97.61, 97.61, 99.58, 18.89, 66.96, 67.42, 79.75),
    "T2V-Turbo": (96.28, 97.02, 97.34, 49.17, 63.04, 72.49, 81.96),
    "DOODL": (95.47, 96.57, 96.84, 55.46, 58.27, 66.79, 80.30),
    "DDPO": (95.53, 96.63, 96.92, 58.29, 59.23, 66.84, 80.78),
    "VADER": (95.79, 96.71, 97.06, 66.94, 66.04, 69.93, 83.45),
    "RLR": (97.53, 97.19, 98.05, 70.69, 66.15, 71.08, 84.61),
}
"""The rows of the paper's table, in the columns of :data:`HEAD`."""


def weighted_average(scores: Mapping[str, float]) -> float | None:
    """Returns the weighted average of scores by name, on their scale; None unless all six are there."""
    if not all(dimension.name in scores for dimension in SIX):
        return None
    return sum(dimension.weight * scores[dimension.name] for dimension in SIX) / sum(d.weight for d in SIX)


def formula() -> str:
    """Returns the weighted average in words, with its exact weights."""
    terms = " + ".join(f"{dimension.weight:g} × {dimension.title}" for dimension in SIX)
    return f"Weighted Average = ({terms}) / {sum(dimension.weight for dimension in SIX):g}, on raw percentages"


@dataclass(frozen=True)
class Report:
    """The scores of a set of videos.

    Args:
        name: The name of the row.
        scores: By the name of the dimension.
        facts: What is needed to repeat it, as plain data.
    """

    name: str
    scores: Mapping[str, Score]
    facts: Mapping[str, Any]

    @property
    def percent(self) -> dict[str, float]:
        """The scores and, where all six are there, their weighted average, in percent."""
        percent = {name: 100 * score.value for name, score in self.scores.items()}
        average = weighted_average(percent)
        return percent if average is None else {**percent, AVERAGE: average}

    @property
    def table(self) -> Table:
        """The table: the paper's rows and this one; in the note what is not in a column, and the formula."""
        published = [(f"{method} (paper)", *(f"{number:.2f}" for number in row)) for method, row in PAPER.items()]
        percent = self.percent
        columns = [*(dimension.name for dimension in SIX), AVERAGE]
        own = (f"{percent[name]:.2f}" if name in percent else MISSING for name in columns)
        further = [
            f"{DIMENSIONS[name].title}, outside the average: {percent[name]:.2f}"
            for name in self.scores
            if DIMENSIONS[name].weight == 0
        ]
        return Table("VBench", ("Methods", *HEAD), [*published, (self.name, *own)], "\n\n".join([*further, formula()]))

    def text(self) -> str:
        """Returns the table in Markdown with its note."""
        return f"{self.table.markdown()}\n\n{self.table.note}"

    def json(self) -> bytes:
        """Returns everything, the number of every video included, as the content of a JSON file."""
        content = {
            "name": self.name,
            "percent": {name: self.percent[name] for name in self.scores},
            AVERAGE: self.percent.get(AVERAGE),
            "weights": {dimension.name: dimension.weight for dimension in SIX},
            "formula": formula(),
            "paper": {method: list(row) for method, row in PAPER.items()},
            **self.facts,
            "scores": {name: dict(score.videos) for name, score in self.scores.items()},
        }
        return to_json(content)

    def save(self, folder: Path) -> list[Path]:
        """Writes ``results.json`` and ``table.md``, and returns their paths."""
        contents = {"results.json": self.json(), "table.md": f"{self.text()}\n".encode()}
        for name, content in contents.items():
            write_whole(folder / name, content)
        return [folder / name for name in contents]


def evaluate(
    name: str, videos: VideoSet, folder: Path, out: Path, judge: Judge, further: Mapping[str, Any], say: Say = silent
) -> Report:
    """Judges the videos in a folder.

    Args:
        name: The name of the row; where the videos are not the whole set, the row says so besides.
        videos: What is judged of which videos.
        folder: The folder of the videos.
        out: The folder in whose ``scores`` the scores are kept.
        judge: The judge.
        further: More facts.
        say: Called with how far the work has come.
    """
    entries = videos.entries(folder)
    scores = judge.score(videos.judged, entries, out / "scores", say)
    note = videos.describe(entries)
    facts = {
        **further,
        "folder": str(folder),
        "prompts": len(entries),
        "videos": sum(len(entry.videos) for entry in entries),
        "note": note or None,
        "files": weights.digests([DIMENSIONS[key] for key in scores], judge.weights),
        "device": judge.device,
        "date": provenance.now(),
        "commit": provenance.commit(),
        "versions": {**provenance.versions(), "vbench": package()},
    }
    return Report(f"{name} ({note})" if note else name, scores, facts)
