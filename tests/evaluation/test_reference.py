"""Distances of sets have their known values, and no order, rotation or division into ranks changes them."""

import math

import pytest
import torch
from PIL import Image

from rlr.evaluation import CMMD, Colors, Evaluator, PrecisionRecall, SampleSet
from rlr.evaluation.cmmd import cmmd
from rlr.evaluation.images import to_image
from rlr.evaluation.precision import coverage
from rlr.evaluation.reference import pixels
from rlr.evaluation.samples import SampleBatch
from tests.modules.toy import WORDS, align


def points(seed, count=6, width=4):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cmmd_of_single_points_is_the_closed_form():
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert cmmd(x, y).item() == pytest.approx(1000 * (2 - 2 * math.exp(-2 / 200)), rel=1e-12)
    # lengths do not matter
    assert cmmd(3 * x, 0.5 * y).item() == pytest.approx(cmmd(x, y).item(), rel=1e-12)


def test_cmmd_of_two_points_each_by_hand():
    """x: e₁, e₂; y: e₁, −e₁, with ‖e₁ − e₂‖² = 2 and ‖e₁ + e₁‖² = 4."""
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    a, b = math.exp(-2 / 200), math.exp(-4 / 200)
    expected = (2 + 2 * a) / 4 + (2 + 2 * b) / 4 - 2 * (1 + b + 2 * a) / 4
    assert cmmd(x, y).item() == pytest.approx(1000 * expected, rel=1e-9)


def test_cmmd_is_a_distance_of_sets():
    x, y = points(0), points(1, 9)
    assert cmmd(x, x).item() == pytest.approx(0, abs=1e-9)
    assert cmmd(x, y) > 0
    assert cmmd(x, y).item() == pytest.approx(cmmd(y, x).item())
    rotation = torch.linalg.qr(points(2, 4)).Q
    assert cmmd(x[[3, 0, 5, 1, 2, 4]] @ rotation, y @ rotation).item() == pytest.approx(cmmd(x, y).item(), rel=1e-9)
    # sets of one distribution are nearer than those of two
    assert cmmd(points(3, 200), points(4, 200)) < 0.1 * cmmd(points(3, 200), points(4, 200) + 2)


def test_precision_and_recall_by_hand():
    """Real 0, 1, 2, 10 have the radii 1, 1, 1, 8, and made 0.5, 3.5, 30 have 3, 3, 26.5."""
    real, made = (torch.tensor(x, dtype=torch.float64)[:, None] for x in ([0, 1, 2, 10], [0.5, 3.5, 30]))
    assert coverage(made, real, 1).item() == pytest.approx(2 / 3)
    assert coverage(real, made, 1).item() == 1
    assert coverage(real + 1000, made, 1).item() == 0
    with pytest.raises(ValueError, match="expected more than 3 samples and reference images, found 3"):
        coverage(real, made, 3)


def test_precision_falls_with_noise_and_recall_with_collapse():
    real = points(0, 200, 2)
    assert coverage(points(1, 200, 2), real, 3) > 0.8
    assert coverage(5 * points(1, 200, 2), real, 3) < 0.5
    assert coverage(real, 0.01 * points(1, 200, 2), 3) < 0.1


@pytest.fixture
def folder(tmp_path):
    """Images of several sizes."""
    for k, size in enumerate((8, 12, 16, 8, 8, 10)):
        image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(k))
        (tmp_path / "real" / "more").mkdir(parents=True, exist_ok=True)
        to_image(image).save(tmp_path / "real" / ("more" if k % 2 else "") / f"{k}.png")
    return tmp_path / "real"


def test_the_metrics_of_samples_are_those_of_their_features(folder):
    chain, samples = align().chain, SampleSet(WORDS[:5], 2)
    metrics = [CMMD(str(folder), Colors()), PrecisionRecall(str(folder), Colors(), 2)]
    values = Evaluator(samples, metrics).evaluate(chain).values
    made = torch.cat([Colors()(batch.pixels) for batch in samples.batches(chain)]).double()
    real = torch.cat([Colors()(pixels(path)) for path in sorted(folder.rglob("*.png"))]).double()
    assert len(real) == 6
    assert values["CMMD"].item() == pytest.approx(cmmd(made, real).item(), rel=1e-5)
    assert values["precision"] == coverage(made, real, 2)
    assert values["recall"] == coverage(real, made, 2)


def test_a_sample_that_is_not_finite_counts_nowhere(folder):
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(9))
    broken = images.clone()
    broken[1, 0, 0, 0] = float("nan")
    metric, found = CMMD(str(folder), Colors()), []
    for rows, batch in (([0, 2, 3], images[[0, 2, 3]]), ([0, 1, 2, 3], broken)):
        metric.begin(SampleSet([str(row) for row in range(4)]))
        made = SampleBatch(rows, [str(row) for row in rows], batch)
        if len(rows) == 4:
            with pytest.warns(UserWarning, match=r"in sample 1 \('1'\)"):
                made = made.finite()
        metric.update(made)
        found.append(metric.compute().item())
    assert found[0] == found[1]


def test_frames_of_videos_are_images(folder):
    video = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(9))
    metric, found = CMMD(str(folder), Colors()), []
    for batch in (video, video.flatten(0, 1)):
        metric.begin(SampleSet(["a"] * len(batch)))
        metric.update(SampleBatch(list(range(len(batch))), ["a"] * len(batch), batch))
        found.append(metric.compute().item())
    assert found[0] == pytest.approx(found[1])


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"CMMD: expected a folder of images .* found none in"):
        CMMD(str(tmp_path), Colors()).check(SampleSet(["a"]), video=False)
    with pytest.raises(ValueError, match="PrecisionRecall: expected neighbors >= 1, found 0"):
        PrecisionRecall(str(tmp_path), Colors(), 0)


def test_pixels_are_those_of_the_file(tmp_path):
    Image.new("L", (3, 2), 51).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").shape == (1, 3, 2, 3)
    assert pixels(tmp_path / "a.png").unique().item() == pytest.approx(0.2)
