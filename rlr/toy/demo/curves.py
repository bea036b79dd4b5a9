"""Reward and exact check against updates."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from rlr.evaluation.statistics import Comparison


@dataclass(frozen=True)
class Look:
    """Colors of a figure."""

    paper: str
    ink: str
    faint: str
    line: str
    accent: str


LIGHT = Look("#ffffff", "#1f2328", "#656d76", "#d1d9e0", "#0969da")
DARK = Look("#0d1117", "#e6edf3", "#9198a1", "#3d444d", "#4493f8")


@dataclass(frozen=True)
class Curves:
    r"""Measurements during alignment.

    Args:
        updates: The updates after which held-out prompts were sampled; 0 is the base model.
        held_out: Measurements on them by name, one comparison with the base model an update.
        prompts: The number of those prompts, each sampled once.
        training: The mean reward of the rollouts of every update.
    """

    updates: Sequence[int]
    held_out: Mapping[str, Sequence[Comparison]]
    prompts: int
    training: Sequence[float]


def draw(curves: Curves, look: Look = LIGHT) -> bytes:
    """Returns the curves as the content of a PNG file."""
    buffer = io.BytesIO()
    drawing(curves, look).savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def drawing(curves: Curves, look: Look) -> Figure:
    """Returns the figure: reward to the left, exact check to the right."""
    figure = Figure(figsize=(10, 4.1), layout="constrained", facecolor=look.paper)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _reward(left, curves, look)
    _check(right, curves, look)
    for axes in (left, right):
        _style(axes, look)
    # below both plots: within one it would cover lines
    options = {"frameon": False, "labelcolor": look.faint, "fontsize": 9, "ncols": 3}
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", **options)
    return figure


def _reward(axes: Axes, curves: Curves, look: Look) -> None:
    axes.set_title("Reward", loc="left", color=look.ink)
    at = np.arange(1, len(curves.training) + 1)
    axes.plot(at, curves.training, color=look.line, linewidth=1, label="training prompts, each update's batch")
    _line(axes, curves, "reward", look)


def _check(axes: Axes, curves: Curves, look: Look) -> None:
    axes.set_title(f"Exact check: all correct, {curves.prompts} held-out prompts", loc="left", color=look.ink)
    _line(axes, curves, "all", look)
    # all shares there are: an axis that follows the curve shows the noise of few prompts as movement
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(MultipleLocator(0.2))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def _line(axes: Axes, curves: Curves, name: str, look: Look) -> None:
    """Draws means on held-out prompts, and around them the interval of the paired difference from the base model."""
    found = curves.held_out[name]
    means, label = [value.aligned for value in found], f"{curves.prompts} held-out prompts"
    axes.plot(curves.updates, means, "o-", color=look.accent, label=label)
    low, high = [value.base + value.low for value in found], [value.base + value.high for value in found]
    band = "95 % interval of the change since update 0"
    axes.fill_between(curves.updates, low, high, color=look.accent, alpha=0.2, linewidth=0, label=band)


def _style(axes: Axes, look: Look) -> None:
    axes.set_facecolor(look.paper)
    axes.set_xlabel("updates", color=look.faint)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(look.line)
    axes.tick_params(colors=look.faint, length=0)
    axes.grid(axis="y", color=look.line, linewidth=0.6, alpha=0.6)
