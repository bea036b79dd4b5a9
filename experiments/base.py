"""Experiments: cells that are measured one by one, and tables and figures of their rows."""

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
    """The unit of measurement; its rows are stored and not measured again.

    Args:
        key: Identifies the cell: method, reward, seed and so on. All cells of an experiment have the same names.
        recipe: The command or the settings of the measurement. Rows of another recipe are stale.
        work: Measures the cell and returns one or more rows; additional columns distinguish the rows of a cell.
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
        title: The title.
        draw: Draws it on an empty canvas.
        note: Explanations for the reader.
        size: Width and height in inches.
    """

    title: str
    draw: Callable[[Canvas], None]
    note: str = ""
    size: tuple[float, float] = (8.0, 3.2)


class Experiment(ABC):
    """A table or a figure of the paper, or what one of them needs."""

    name: ClassVar[str]
    """The name of the command and of the files."""

    title: ClassVar[str]
    note: ClassVar[str] = ""
    """What the experiment measures, in a sentence or two."""

    source: ClassVar[str] = ""
    """The experiment whose rows this one uses, if they are not its own; both then have the same cells."""

    published: ClassVar[Sequence[Table]] = ()
    """The numbers of the paper, for comparison."""

    @abstractmethod
    def cells(self, scale: Scale, seeds: Sequence[int]) -> Sequence[Cell]:
        """Returns the cells, in the order in which partial results are most useful.

        Raises:
            ValueError: If the experiment does not have this scale.
        """

    @abstractmethod
    def show(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        """Returns the tables and figures of the rows; any number of cells may still be missing."""

    def missing(self, scale: Scale) -> str | None:
        """Returns one sentence about what this machine lacks for the scale, or None."""
        return scale.missing()
