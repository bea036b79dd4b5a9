"""Runs side by side: tables of what they end with, and their curves."""

from collections.abc import ItemsView, Mapping, Sequence

from cycler import cycler
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from experiments.base import Figure, Row, Table
from experiments.marks import START, at
from experiments.summary import difference_of, grouped, mean_of, numbers

COSTS = (("update", "updates", 0), ("reward_calls", "reward calls", 0), ("step_seconds", "seconds", 0))
STYLES = ("-", "--", ":")
"""The lines of the methods with the first round of colors, the second, and the third."""


def measurements(rows: Sequence[Row]) -> list[str]:
    """Returns the names of what was measured, in the order of the columns."""
    names = [name.removesuffix(" gain") for row in rows for name in row if name.endswith(" gain")]
    return [name for name in dict.fromkeys(names) if name != "proxy"]


def overview(rows: Sequence[Row], mark: str, title: str, note: str = "") -> Table:
    """Returns the reward that was trained for, a line each method, a column each set of prompts and reward."""
    ends = at(rows, mark)
    columns = list(dict.fromkeys((str(row["prompts"]), str(row["reward"])) for row in ends))
    base = [_means(model, "base", group, columns) for (model,), group in grouped(at(rows, START), "model").items()]
    ended = grouped(ends, "model", "method")
    methods = [_means(model, method, group, columns) for (model, method), group in ended.items()]
    lines = [line for start in base for line in (start, *(line for line in methods if line[0] == start[0]))]
    return Table(title, ("model", "method", *(f"{prompts}: {reward}" for prompts, reward in columns)), lines, note)


def _means(
    model: str | float, method: str | float, rows: Sequence[Row], columns: Sequence[tuple[str, str]]
) -> tuple[str, ...]:
    groups = grouped(rows, "prompts", "reward")
    return str(model), str(method), *(mean_of(groups.get(column, []), "proxy") for column in columns)


def details(rows: Sequence[Row], mark: str, title: str) -> list[Table]:
    """Returns, for each model, set of prompts and trained reward, tables of all measurements and costs, and of the differences."""
    tables = []
    for (model, prompts, reward), group in grouped(rows, "model", "prompts", "reward").items():
        names = {name: 2 if _large(group, name) else 3 for name in measurements(group)}
        about = f"{model} trained for {reward}, on {prompts}"
        tables += [
            _scores(group, mark, f"{title}: {about}", names),
            _gains(group, mark, f"{title}, differences: {about}", names),
        ]
    return tables


def _scores(rows: Sequence[Row], mark: str, title: str, names: Mapping[str, int]) -> Table:
    """Returns the table of measurements, with their numbers of decimals, and costs."""
    head = ("method", *names, *(shown for _, shown, _ in COSTS), "runs")
    # the base model is the same in all runs, and so are its rows
    base = (*_line("base", at(rows, START), names)[:-1], "–")
    return Table(title, head, [base, *(_line(str(method), ends, names) for (method,), ends in _ends(rows, mark))])


def _gains(rows: Sequence[Row], mark: str, title: str, names: Mapping[str, int]) -> Table:
    """Returns the table of the mean differences from the base model."""
    lines = [
        (str(method), *(difference_of(ends, f"{name} gain", decimals) for name, decimals in names.items()))
        for (method,), ends in _ends(rows, mark)
    ]
    return Table(title, ("method", *names), lines, "Differences from the base model on the same prompts and noises.")


def _ends(rows: Sequence[Row], mark: str) -> ItemsView[tuple[str | float, ...], list[Row]]:
    return grouped(at(rows, mark), "method").items()


def _line(name: str, rows: Sequence[Row], names: Mapping[str, int]) -> tuple[str, ...]:
    costs = (mean_of(rows, column, decimals) for column, _, decimals in COSTS)
    return name, *(mean_of(rows, measured, decimals) for measured, decimals in names.items()), *costs, str(len(rows))


def _large(rows: Sequence[Row], name: str) -> bool:
    return max(map(abs, numbers(rows, name)), default=0.0) >= 2


def curves(
    rows: Sequence[Row], xs: Sequence[tuple[str, str]], ys: Sequence[tuple[str, str]], title: str, note: str = ""
) -> Figure:
    """Returns a figure of means over seeds, with bands from the least to the largest.

    Args:
        rows: Rows that differ in method, seed and update.
        xs: Columns and names of the horizontal axes, one a column of drawings.
        ys: Columns and names of the vertical axes, one a row of drawings; with one horizontal axis all are in one row.
        title: Its title.
        note: Its note.
    """
    pairs = [(x, y) for y in ys for x in xs]
    columns = len(xs) if len(xs) > 1 else len(ys)
    lines = len(pairs) // columns

    def draw(canvas: Canvas) -> None:
        grid = canvas.subplots(lines, columns, squeeze=False)
        for axes, ((x, horizontal), (y, vertical)) in zip(grid.flat, pairs, strict=True):
            _draw(axes, rows, x, y)
            axes.set(xlabel=horizontal, ylabel=vertical)
            axes.locator_params(axis="x", nbins=6)
        # beside the drawings, where it hides no curve
        canvas.legend(*grid[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)

    return Figure(title, draw, note, (4.2 * columns + 1.3, 2.7 * lines))


def _draw(axes: Axes, rows: Sequence[Row], x: str, y: str) -> None:
    axes.set_prop_cycle(cycler(linestyle=STYLES) * rcParams["axes.prop_cycle"])
    for (method,), group in grouped(rows, "method").items():
        points = [
            (numbers(p, x), numbers(p, y))
            for _, p in sorted(grouped(group, "update").items(), key=lambda item: float(item[0][0]))
        ]
        points = [(a, b) for a, b in points if a and b]
        across = [sum(a) / len(a) for a, _ in points]
        axes.plot(across, [sum(b) / len(b) for _, b in points], label=str(method), linewidth=1.2)
        axes.fill_between(across, [min(b) for _, b in points], [max(b) for _, b in points], alpha=0.15)
