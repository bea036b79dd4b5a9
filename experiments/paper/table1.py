"""Table 1 of the paper: bias, variance and memory of every gradient estimator."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from experiments.base import Experiment, Figure, Row, Run, Table
from experiments.cost.estimators import ENTRIES, Entry
from experiments.paper.problems import Images, Linear, ReferenceProblem
from experiments.settings import TINY, Setting
from experiments.summary import grouped
from rlr.analysis.accuracy import accuracy
from rlr.analysis.measure import peak_bytes
from rlr.rewards import Brightness

MIB = 2**20


def measure(known: ReferenceProblem, entry: Entry) -> Row:
    """Returns the accuracy of an estimator, and the cost of one draw."""
    problem, reference = known.problem, known.reference
    entry.make(known.steps).check(problem.chain)
    factor = entry.scale(problem)
    start = time.process_time()
    draws = torch.stack([problem.gradient(entry.make(known.steps), seed) for seed in known.seeds])
    spent = (time.process_time() - start) / known.draws
    device = problem.chain.model.device
    peak = peak_bytes(lambda: problem.gradient(entry.make(known.steps), known.seeds[0]), device)
    found = asdict(accuracy(factor * draws, reference))
    return {**found, "peak_mib": peak / MIB, "cpu_seconds": spent, "reference_error": reference.error}


class Table1(Experiment):
    """Bias and variance against a gradient that is known: exactly on a linear chain, by many draws on the image model."""

    name = "table1"
    title = "Table 1: bias, variance and memory of gradient estimators"
    note = (
        "One run of many draws; errors are standard errors over draws. All numbers but memory and time are "
        "relative to the norm of the gradient g. The bias comes from an unbiased estimate of its square, with an "
        "interval of two standard errors; the cosine is that of one draw with g, on average; the deep cosine is "
        "that with the part of g that goes through the weights of the early, noisy steps ⌊T/2⌋ + 1 … T alone, "
        "all of which backpropagation truncated to T/2 steps leaves out. Memory is the most bytes "
        "of tensors alive at once in one estimate (the first draw) beyond weights and noises; seconds are those "
        "of one thread of a CPU, for one estimate. T is the number of steps, D that of a latent's dimensions, s "
        "the standard deviation of rewards, h = 2 the length of a segment. DDPO's likelihood is a mean over D "
        "dimensions and its loss one over T steps, and published it divides rewards by s: its draws are "
        "multiplied by DT or DTs. The released code's weigh the last step by 0.05: its draws are multiplied by "
        "20; its row of the aesthetic script is of that script's chain, eta = 0.05, and of that chain's g. "
        "AlignProp, DRaFT-LV and ReFL have weight 1. V1, RLR's first order alone, is FirstOrder(1)."
    )
    published = (
        Table(
            "Table 1",
            ("method", "unbiased", "variance", "memory"),
            (
                ("First-order", "yes", "small", "large"),
                ("Half-order", "yes", "medium", "medium"),
                ("Zeroth-order", "yes", "large", "small"),
                ("Truncated BP", "no", "small", "medium"),
            ),
        ),
    )

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        """The seeds do not matter: draws take their place."""
        if setting.gpu:
            raise ValueError(
                f"Table 1 needs hundreds of full gradients and is measured for the setting {TINY.name} alone; "
                "docs/method.md describes how the results carry over"
            )
        known = {eta: _problems(eta, setting) for eta in {entry.eta for entry in ENTRIES}}
        return [self._run(known[entry.eta][k], entry) for k in range(2) for entry in ENTRIES]

    def _run(self, known: ReferenceProblem, entry: Entry) -> Run:
        key = {"problem": known.name, "estimator": entry.name}
        return Run(key, known.command + entry.remark, partial(_rows, known, entry))

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        groups = list(grouped(rows, "problem").values())
        return [*map(_table, groups), *map(_figure, groups)]


def _problems(eta: float, setting: Setting) -> tuple[ReferenceProblem, ReferenceProblem]:
    # of a learned reward the gradient is not known: see the experiment tails
    return Linear(10, 16, 300, eta), Images("brightness", Brightness, 5, 8, 8, 24, setting.runs, eta)


def _rows(known: ReferenceProblem, entry: Entry) -> list[Row]:
    return [measure(known, entry)]


def _table(rows: Sequence[Row]) -> Table:
    head = ("estimator", "share of g", "bias", "variance", "cosine", "deep cosine", "peak MiB", "s / estimate")
    return Table(str(rows[0]["command"]), head, [_line(row) for row in rows], _knowledge(rows))


def _knowledge(rows: Sequence[Row]) -> str:
    """Returns how well g is known, which may be that of another chain in some rows."""
    errors = [float(row["reference_error"]) for row in rows]
    if not errors[0]:
        return "g is exact. Memory of a model of three weights says nothing of larger ones."
    others = [f"{row['estimator']}: ± {e:.0%}" for row, e in zip(rows, errors, strict=True) if e != errors[0]]
    but = f", but those with a g of their own ({'; '.join(others)})" if others else ""
    return f"The square of ‖g‖ is known to ± {errors[0]:.0%}, an error that all rows share{but}."


def _line(row: Row) -> tuple[str, ...]:
    def plus(name: str, show: Callable[[float], str]) -> str:
        return f"{show(float(row[name]))} ± {show(float(row[f'{name}_error']))}"

    bias, least, most, peak, spent = (float(row[k]) for k in ("bias", "least", "most", "peak_mib", "cpu_seconds"))
    return (
        str(row["estimator"]),
        plus("share", lambda x: f"{x:.2f}"),
        f"{bias:.3g} ({least:.3g} … {most:.3g})",
        plus("variance", lambda x: f"{x:.3g}"),
        plus("cosine", lambda x: f"{x:.3f}"),
        plus("deep_cosine", lambda x: f"{x:.3f}"),
        f"{peak:.3g}",
        f"{spent:.2g}",
    )


def _figure(rows: Sequence[Row]) -> Figure:
    def draw(canvas: Canvas) -> None:
        panels = canvas.subplots(1, 3, sharey=True)
        names, at = [str(row["estimator"]) for row in rows], range(len(rows))
        _biases(panels[0], rows)
        _bars(panels[1], rows, "variance", "variance / ‖g‖²")
        _bars(panels[2], rows, "peak_mib", "peak MiB")
        panels[0].set_yticks(at, names, fontsize=7)
        panels[0].invert_yaxis()

    note = (
        "Bars of the bias are intervals of two standard errors; those that reach beyond 2 are cut off. "
        "Variance and memory are logarithmic."
    )
    return Figure(f"Figure: {rows[0]['command']}", draw, note, (10.5, 0.24 * len(rows) + 1.2))


def _biases(axes: Axes, rows: Sequence[Row]) -> None:
    for k, row in enumerate(rows):
        least, most = (min(float(row[name]), 2.1) for name in ("least", "most"))
        axes.plot([least, most], [k, k], linewidth=3, color="tab:blue", solid_capstyle="butt")
        axes.plot([float(row["bias"])], [k], "|", color="black")
    axes.set(xlabel="bias / ‖g‖", xlim=(-0.05, 2.0))
    axes.grid(axis="x", alpha=0.3)


def _bars(axes: Axes, rows: Sequence[Row], name: str, label: str) -> None:
    axes.barh(range(len(rows)), [float(row[name]) for row in rows], height=0.6, color="tab:gray", log=True)
    axes.set(xlabel=label)
    axes.grid(axis="x", alpha=0.3)
