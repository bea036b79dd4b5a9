import json

import pytest
import torch

from experiments.cost import points, variance
from experiments.cost.estimators import ENTRIES
from experiments.cost.points import Points
from rlr.analysis.accuracy import Reference, accuracy
from rlr.chain import Chain
from rlr.estimators import AllSteps, FirstOrder
from rlr.samplers import DDIM


def test_the_reference_is_what_single_gradients_scatter_around() -> None:
    chain = Chain(Points(width=8), DDIM(3))
    g = variance.reference(chain, draws=4, batch=500)
    single = variance.problem(chain, 16).gradients(FirstOrder(AllSteps()), range(200))
    found = accuracy(single, g)
    assert found.share == pytest.approx(1, abs=4 * found.share_error + 0.05)


def test_the_model_learns_its_data() -> None:
    model = points.trained(steps=300)
    chain = Chain(model, DDIM(20))
    noises = torch.randn(21, 256, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = chain.sample(chain.encode([""] * 256), noises).states[0]
    nearest = (samples[:, None] - points.means()).norm(dim=2).min(1).values
    # a point of the mixture lies 0.3 · √8 = 0.85 from its mean; pure noise lies about 3 from the nearest
    assert nearest.median() < 1.5


def test_the_command_writes_its_numbers(tmp_path, capsys, monkeypatch) -> None:
    ones = torch.ones(4 * 11 + 4 * 5 + 8 * 5, dtype=torch.float64)
    monkeypatch.setattr(variance, "trained", lambda: Points(width=4))
    monkeypatch.setattr(variance, "reference", lambda chain, draws: Reference.exact(ones, ones))
    out = tmp_path / "new" / "variance.json"
    variance.main(["--steps=5", "--batch=4", "--draws=2", "--only", "RLR(h)", f"--out={out}"])
    names = [row["name"] for row in json.loads(out.read_text())["rows"]]
    assert names == [entry.name for entry in ENTRIES if "RLR(h)" in entry.name]
    assert all(name in capsys.readouterr().out for name in names[:1])
