import json

import pytest
import torch

from benchmarks import toy, variance
from benchmarks.toy import Points
from rlr.chain import Chain
from rlr.estimators import AllSteps, FirstOrder
from rlr.samplers import DDIM


def test_an_exact_estimate_with_noise_has_the_known_row() -> None:
    g = torch.tensor([3.0, 4.0], dtype=torch.float64)
    noise = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]], dtype=torch.float64)
    row = variance.row("", g + noise, g)
    assert row.share == pytest.approx(1)
    assert row.bias == row.least == 0
    assert row.variance == pytest.approx((2 / 3 + 8 / 3) / 25)


def test_a_bias_is_seen() -> None:
    g = torch.tensor([1.0, 0.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([0.5, 0.0]) + 0.1 * torch.randn(400, 2, generator=generator, dtype=torch.float64)
    row = variance.row("", draws, g)
    assert row.share == pytest.approx(0.5, abs=4 * row.error)
    assert row.least < 0.5 < row.most
    assert row.most - row.least < 0.04


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_the_error_of_the_squared_bias_is_its_scatter(bias: float) -> None:
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    repeats = [
        variance.squared_bias(bias + spread * torch.randn(50, 3, generator=generator, dtype=torch.float64))
        for _ in range(2000)
    ]
    estimates, errors = (torch.stack(values) for values in zip(*repeats, strict=True))
    assert abs(estimates.mean() - 3 * bias**2) < 4 * estimates.std() / 2000**0.5
    # at bias 0 the first part of the formula is itself an estimate of nothing, and errs on the safe side
    assert estimates.std() * 0.9 < errors.mean() < estimates.std() * 1.6


def test_the_reference_is_what_single_gradients_scatter_around() -> None:
    chain = Chain(Points(width=8), DDIM(3))
    g = variance.reference(chain, draws=4, batch=500)
    single = torch.stack([variance.gradient(FirstOrder(AllSteps()), chain, 16, seed) for seed in range(200)])
    row = variance.row("", single, g)
    assert row.share == pytest.approx(1, abs=4 * row.error + 0.05)


def test_the_model_learns_its_data() -> None:
    model = toy.trained(steps=300)
    samples = (
        Chain(model, DDIM(20))
        .sample([""] * 256, torch.randn(21, 256, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
        .states[0]
    )
    nearest = (samples[:, None] - toy.means()).norm(dim=2).min(1).values
    # a point of the mixture lies 0.3 · √8 = 0.85 from its mean; pure noise lies about 3 from the nearest
    assert nearest.median() < 1.5


def test_the_command_writes_its_numbers(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(variance, "trained", lambda: Points(width=4))
    monkeypatch.setattr(
        variance, "reference", lambda chain, draws: torch.ones(4 * 11 + 4 * 5 + 8 * 5, dtype=torch.float64)
    )
    out = tmp_path / "new" / "variance.json"
    variance.main(["--steps=5", "--batch=4", "--draws=2", "--only", "RLR(4)", f"--out={out}"])
    names = [row["name"] for row in json.loads(out.read_text())["rows"]]
    assert names == [name for name in variance.CASES if "RLR(4)" in name]
    assert all(name in capsys.readouterr().out for name in names[:1])
