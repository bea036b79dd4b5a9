"""What an experiment is: cells that are measured one by one, and tables and figures of their rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from matplotlib.figure import Figure as Canvas

from experiments.scales import Scale
from rlr.evaluation.report import Table as Table

Row = dict[str, str | float]
"""Names and numbers of one line of results."""


@dataclass(frozen=True)
class Cell:
    """The unit that is measured, kept, and not measured again.

    Args:
        key: Which it is: method, reward, seed and so on. All cells of an experiment have the same names.
        recipe: The command or the settings that make it. Rows of another recipe are stale.
        work: Measures it, and returns one row or more; what distinguishes rows of a cell are columns of their own.
    """

    key: Mapping[str, str | int]
    recipe: str
    work: Callable[[], Sequence[Row]]

    @property
    def title(self) -> str:
        """The key in words, such as ``method=RLR seed=0``."""
        return " ".join(f"{name}={value}" for name, value in self.key.items())


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Args:
        title: What it shows.
        draw: Draws it on an empty canvas.
        note: What one has to know to read it.
        size: Width and height in inches.
    """

    title: str
    draw: Callable[[Canvas], None]
    note: str = ""
    size: tuple[float, float] = (8.0, 3.2)


class Experiment(ABC):
    """A table or a figure of the paper, or what one of them needs."""

    name: ClassVar[str]
    """Names its command and its files."""

    title: ClassVar[str]
    note: ClassVar[str] = ""
    """What is measured, in a sentence or two."""

    source: ClassVar[str] = ""
    """The experiment whose rows are shown, where they are not its own; both then have the same cells."""

    published: ClassVar[Sequence[Table]] = ()
    """The paper's own numbers, which are shown beside ours."""

    @abstractmethod
    def cells(self, scale: Scale, seeds: Sequence[int]) -> Sequence[Cell]:
        """Returns what is to be measured, in the order in which partial results are of most use.

        Raises:
            ValueError: If there is nothing of that scale.
        """

    @abstractmethod
    def show(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        """Returns what the rows say; any number of cells may still be missing."""

    def missing(self, scale: Scale) -> str | None:
        """Returns one sentence about what this machine lacks to measure at that scale, or None."""
        return scale.missing()
