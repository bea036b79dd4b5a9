"""Experiments: runs that are measured one by one, and tables and figures of their rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from matplotlib.figure import Figure as Canvas

from experiments.settings import Setting
from rlr.evaluation.report import Table as Table

Row = dict[str, str | float]
"""Names and numbers of one line of results."""


@dataclass(frozen=True)
class Run:
    """The unit of measurement; its rows are stored and not measured again.

    Args:
        key: Identifies the run: method, reward, seed and so on. All runs of an experiment have the same keys.
        command: The command, or a description of a measurement that is no command. Rows of another command are stale.
        measure: Does the run and returns one or more rows; additional columns distinguish the rows of a run.
    """

    key: Mapping[str, str | int]
    command: str
    measure: Callable[[], Sequence[Row]]

    @property
    def title(self) -> str:
        """The key as text, such as ``method=RLR seed=0``."""
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

    published: ClassVar[Sequence[Table]] = ()
    """The numbers of the paper, for comparison."""

    @abstractmethod
    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        """Returns the runs, in the order in which partial results are most useful.

        Raises:
            ValueError: If the experiment does not have this setting.
        """

    @abstractmethod
    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        """Returns the tables and figures of the rows; any number of runs may still be missing."""

    def prepared(self, setting: Setting, rows: Sequence[Row]) -> Sequence[Row]:
        """Returns the rows as the report needs them, by default as they were measured."""
        return rows

    def source(self, setting: Setting) -> str:
        """Returns the name of the experiment whose rows this one uses, by default its own."""
        return self.name

    def missing(self, setting: Setting) -> str | None:
        """Returns one sentence about what this machine lacks for the setting, or None."""
        return setting.missing()
