"""The pages of an experiment: Markdown, drawings, and one page of HTML that holds all."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure as Canvas

from experiments.base import Experiment, Figure, Row, Table
from rlr.evaluation.report import Block, Chart, Media, Text, page
from rlr.io.atomic import write_whole


@dataclass(frozen=True)
class Page:
    """A page of results.

    Args:
        experiment: What was measured.
        command: The command that measures it and writes the page.
        rows: The measured rows.
        runs: How many runs there are, and how many of them are measured.
    """

    experiment: Experiment
    command: str
    rows: Sequence[Row]
    runs: tuple[int, int]

    def write(self, folder: Path) -> list[Path]:
        """Writes ``NAME.md``, ``NAME.html`` and a PNG for each figure, and returns the paths."""
        shown = self._items()
        names = self._names(shown)
        drawn = {figure: drawing(figure) for figure in names}
        files = {name: drawn[figure] for figure, name in names.items()}
        files[f"{self.experiment.name}.md"] = self._markdown(shown, names).encode()
        files[f"{self.experiment.name}.html"] = self._html(shown, drawn).encode()
        for name, content in files.items():
            write_whole(folder / name, content)
        return [folder / name for name in files]

    def markdown(self) -> str:
        """Returns the text of ``NAME.md``."""
        shown = self._items()
        return self._markdown(shown, self._names(shown))

    def _items(self) -> list[Table | Figure]:
        return list(self.experiment.report(self.rows)) if self.rows else []

    def _names(self, shown: Sequence[Table | Figure]) -> dict[Figure, str]:
        figures = [item for item in shown if isinstance(item, Figure)]
        name = self.experiment.name
        return {figure: f"{name}_{k}.png" if k else f"{name}.png" for k, figure in enumerate(figures)}

    def _markdown(self, shown: Sequence[Table | Figure], names: dict[Figure, str]) -> str:
        parts = [f"# {self.experiment.title}", self.experiment.note, f"```\n{self.command}\n```", self.state]
        for item in shown:
            parts.append(f"## {item.title}")
            parts.append(item.markdown() if isinstance(item, Table) else f"![{item.title}]({names[item]})")
            parts.append(item.note)
        for table in self.experiment.published:
            parts += [f"## In the paper: {table.title}", table.markdown(), table.note]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _html(self, shown: Sequence[Table | Figure], drawn: Mapping[Figure, bytes]) -> str:
        blocks: list[Block] = [Text("", (self.state,), self.command)]
        for item in shown:
            if isinstance(item, Table):
                blocks.append(item)
            else:
                blocks.append(Chart(item.title, Media(drawn[item], item.title), note=item.note))
        blocks += [replace(table, title=f"In the paper: {table.title}") for table in self.experiment.published]
        return page(self.experiment.title, self.experiment.note, blocks)

    @property
    def state(self) -> str:
        """What has been measured, where and when, in a paragraph."""
        total, measured = self.runs
        text = f"{measured} of {total} runs are measured"
        return f"{text}: {'; '.join(self._facts())}." if self.rows else f"{text}."

    def _facts(self) -> Iterator[str]:
        dates, commits, devices = (
            {str(row[name]) for row in self.rows if name in row} for name in ("date", "commit", "device")
        )
        if dates:
            yield " to ".join(sorted({min(dates), max(dates)}))
        yield from (", ".join(sorted(found)) for found in (commits, devices) if found)
        # every row has the seconds of its whole run
        runs = {(row.get("command"), row.get("date"), row.get("seconds", 0.0)) for row in self.rows}
        # the sum of a set of floats depends on its order, and so can the digit that is rounded; fsum does not
        yield f"{math.fsum(float(seconds) for *_, seconds in runs if seconds is not None):.0f} s in all"


def drawing(figure: Figure) -> bytes:
    """Returns a figure as a PNG."""
    canvas = Canvas(figsize=figure.size, layout="constrained")
    figure.draw(canvas)
    buffer = io.BytesIO()
    # no software's version in it: the same rows give the same bytes
    canvas.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
