"""The curves show how sure a change is, on an axis that does not exaggerate it."""

import numpy as np
import torch

from rlr.evaluation.statistics import compare_pair
from rlr.toy.demo.curves import Curves


def curves(change: float) -> Curves:
    """Curves of 60 prompts, of which a share of ``change`` is right after the second look and not at first."""
    base = torch.arange(60) % 2 == 0
    now = base | (torch.arange(60) < 60 * change)
    seen = [base.double()[:, None], now.double()[:, None]]
    held_out = {name: [compare_pair(seen[0], one) for one in seen] for name in ("reward", "all")}
    return Curves([0, 30], held_out, 60, [0.5] * 30)


def test_the_axis_of_shares_is_whole_however_little_moves() -> None:
    for change in (0.02, 0.9):
        _, right = curves(change).plots
        assert (right.up.low, right.up.high) == (0, 1)


def test_the_band_is_the_interval_of_the_paired_change() -> None:
    found = curves(0.4)
    for plot in found.plots:
        line = plot.lines[-1]
        start, end = np.subtract(line.high, line.low)
        value = found.held_out["all"][1]
        # on the same noise the base model has no difference from itself
        assert start == 0
        assert np.isclose(end, value.high - value.low)
        assert 0.05 < value.low < value.difference < value.high < 0.35
        # sabotage: the interval of two sets of samples that are not paired is wider
        assert end < 2 * 1.96 * 0.5 / 60**0.5
