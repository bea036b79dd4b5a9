"""Signal over noise of pathwise terms: known answers."""

import pytest
import torch

from experiments.cost.slopes import STRIDES, SlopeMeasurement, Slopes, signal_to_noise
from experiments.paper.problems import Images
from experiments.settings import SD14, TINY
from rlr.rewards import Brightness


def test_signal_over_noise_of_a_known_mean_and_covariance() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    mean = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    assert signal_to_noise(mean + 2 * noise) == pytest.approx(25 / 12, rel=0.03)
    # without a mean it is 0, and not the square of the error of the mean
    assert signal_to_noise(noise[:50]) == pytest.approx(0.0, abs=0.02)


def test_one_outlier_in_a_batch_is_clipped(tmp_path) -> None:
    rows = SlopeMeasurement(Images("Brightness", Brightness, 3, 4, 3, 0, tmp_path), 2).rows()
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["median"] <= row["ninth"] <= row["most"]
        assert row["raw"] != row["clipped"]


def test_there_is_a_run_for_every_stride() -> None:
    runs = Slopes().runs(TINY, (0, 1))
    assert len(runs) == len(STRIDES) == len({run.command for run in runs})
    with pytest.raises(ValueError, match="measured for the setting tiny alone"):
        Slopes().runs(SD14, (0,))
