"""What an experiment shows, as files: Markdown, drawings, and one page that holds all."""

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure as Canvas

from experiments.base import Experiment, Figure, Row, Table
from rlr.evaluation.table import markdown
from rlr.io.atomic import write_whole

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:62em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{border-bottom:1px solid #ccc;padding:.2em .7em;text-align:right}td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}pre{background:#f4f4f4;padding:.6em;overflow-x:auto}"
)


@dataclass(frozen=True)
class Page:
    """A page of results.

    Args:
        experiment: What was measured.
        command: The command that measures it and writes the page.
        rows: The measured rows.
        cells: How many cells there are, and how many of them are measured.
    """

    experiment: Experiment
    command: str
    rows: Sequence[Row]
    cells: tuple[int, int]

    def write(self, folder: Path) -> list[Path]:
        """Writes ``NAME.md``, ``NAME.html`` and a PNG for each figure, and returns the paths."""
        shown = list(self.experiment.show(self.rows)) if self.rows else []
        names = self._pictures(shown)
        drawn = {figure: picture(figure) for figure in names}
        files = {name: drawn[figure] for figure, name in names.items()}
        files[f"{self.experiment.name}.md"] = self._markdown(shown, names).encode()
        files[f"{self.experiment.name}.html"] = self._html(shown, drawn).encode()
        for name, content in files.items():
            write_whole(folder / name, content)
        return [folder / name for name in files]

    def _pictures(self, shown: Sequence[Table | Figure]) -> dict[Figure, str]:
        figures = [item for item in shown if isinstance(item, Figure)]
        name = self.experiment.name
        return {figure: f"{name}_{k}.png" if k else f"{name}.png" for k, figure in enumerate(figures)}

    def _markdown(self, shown: Sequence[Table | Figure], names: dict[Figure, str]) -> str:
        parts = [f"# {self.experiment.title}", self.experiment.note, f"```\n{self.command}\n```", self.state]
        for item in shown:
            parts.append(f"## {item.title}")
            parts.append(_lines(item) if isinstance(item, Table) else f"![{item.title}]({names[item]})")
            parts.append(item.note)
        for table in self.experiment.published:
            parts += [f"## In the paper: {table.title}", _lines(table), table.note]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _html(self, shown: Sequence[Table | Figure], drawn: Mapping[Figure, bytes]) -> str:
        told = [_told(item, _grid(item) if isinstance(item, Table) else _embedded(item, drawn[item])) for item in shown]
        told += [_told(table, _grid(table), "In the paper: ") for table in self.experiment.published]
        title = html.escape(self.experiment.title)
        head = f"<h1>{title}</h1><p>{html.escape(self.experiment.note)}</p><pre>{html.escape(self.command)}</pre>"
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
            f"{head}<p>{html.escape(self.state)}</p>{''.join(told)}</html>\n"
        )

    @property
    def state(self) -> str:
        """What has been measured, where and when, in a paragraph."""
        total, measured = self.cells
        text = f"{measured} of {total} cells are measured"
        return f"{text}: {'; '.join(self._facts())}." if self.rows else f"{text}."

    def _facts(self) -> Iterator[str]:
        dates, commits, devices = (
            {str(row[name]) for row in self.rows if name in row} for name in ("date", "commit", "device")
        )
        if dates:
            yield " to ".join(sorted({min(dates), max(dates)}))
        yield from (", ".join(sorted(found)) for found in (commits, devices) if found)
        # every row has the seconds of its whole cell
        cells = {(row.get("recipe"), row.get("date"), row.get("seconds", 0.0)) for row in self.rows}
        yield f"{sum(float(seconds) for *_, seconds in cells if seconds is not None):.0f} s in all"


def picture(figure: Figure) -> bytes:
    """Returns a figure as a PNG."""
    canvas = Canvas(figsize=figure.size, layout="constrained")
    figure.draw(canvas)
    buffer = io.BytesIO()
    # no software's version in it: the same rows give the same bytes
    canvas.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _lines(table: Table) -> str:
    return markdown([tuple(table.head), *(tuple(line) for line in table.lines)])


def _told(item: Table | Figure, body: str, prefix: str = "") -> str:
    return f"<h2>{html.escape(prefix + item.title)}</h2>{body}<p>{html.escape(item.note)}</p>"


def _grid(table: Table) -> str:
    def line(texts: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(text)}</{tag}>' for text in texts)}</tr>"

    return f"<table>{line(table.head, 'th')}{''.join(line(texts, 'td') for texts in table.lines)}</table>"


def _embedded(figure: Figure, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(figure.title)}" src="data:image/png;base64,{data}">'
