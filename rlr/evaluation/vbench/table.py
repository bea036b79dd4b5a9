r"""The paper's Table 3: six scores in percent and their weighted average.

.. math:: \frac{SC + BC + MS + \frac{1}{2} DD + AQ + IQ}{5.5}

on raw percentages. It is not the quality score of VBench's leaderboard, which rescales each dimension and counts temporal
flickering as a seventh.
"""

from collections.abc import Iterator, Mapping

from rlr.evaluation.table import Line, markdown
from rlr.evaluation.vbench.dimensions import DIMENSIONS, SIX

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
"""The rows of the paper's table: the six dimensions in the order of ``dimensions.SIX``, and the average."""

NONE = "–"


def weighted_average(scores: Mapping[str, float]) -> float | None:
    """Returns the weighted average of scores by name, on their scale; None unless all six are there."""
    if not all(dimension.name in scores for dimension in SIX):
        return None
    return sum(dimension.weight * scores[dimension.name] for dimension in SIX) / sum(d.weight for d in SIX)


def formula() -> str:
    """Returns the weighted average in words, with its exact weights."""
    terms = " + ".join(f"{dimension.weight:g} × {dimension.title}" for dimension in SIX)
    return f"Weighted Average = ({terms}) / {sum(dimension.weight for dimension in SIX):g}, on raw percentages"


def lines(name: str, scores: Mapping[str, float]) -> list[Line]:
    """Returns the table, the head first: the paper's rows and one more.

    Args:
        name: What the further row is called.
        scores: Its scores by the dimension's name, as VBench gives them, in [0, 1].
    """
    head = ("Methods", *(dimension.title for dimension in SIX), "Weighted Average")
    published = [(f"{method} (paper)", *(f"{number:.2f}" for number in row)) for method, row in PAPER.items()]
    return [head, *published, (name, *_row(scores))]


def _row(scores: Mapping[str, float]) -> Iterator[str]:
    for score in (*(scores.get(dimension.name) for dimension in SIX), weighted_average(scores)):
        yield NONE if score is None else f"{100 * score:.2f}"


def text(name: str, scores: Mapping[str, float]) -> str:
    """Returns the table in Markdown, what it does not hold, and how its average is made."""
    further = [
        f"{DIMENSIONS[key].title}, outside the average: {100 * score:.2f}"
        for key, score in scores.items()
        if DIMENSIONS[key].weight == 0
    ]
    return "\n\n".join([markdown(lines(name, scores)), *further, formula()])
