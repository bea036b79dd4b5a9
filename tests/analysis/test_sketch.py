"""A count sketch keeps inner products, without bias and with the error of its formula."""

import pytest
import torch

from rlr.analysis import sketch
from rlr.analysis.sketch import sketched


def test_inner_products_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch, "CHUNK", 1000)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 5000, generator=generator, dtype=torch.float64)
    vectors[:20] += 1
    short = torch.stack([sketched(x, 512) for x in vectors])
    assert short.shape == (40, 512)
    norms = vectors.norm(dim=1)
    errors = (short @ short.T - vectors @ vectors.T) / (norms[:, None] * norms)
    assert errors.abs().max() < 5 * (2 / 512) ** 0.5
    # pairs share the hash, and single errors are not independent
    assert errors.square().mean().sqrt() < 1.5 * (2 / 512) ** 0.5
    assert abs(errors.mean()) < 0.3 * (2 / 512) ** 0.5


def test_a_sketch_is_linear_and_the_same_for_every_vector() -> None:
    x, y = torch.randn(2, 3000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(sketched(x, 100), sketched(x, 100))
    assert torch.allclose(sketched(2 * x - y, 100), 2 * sketched(x, 100) - sketched(y, 100))


def test_a_short_vector_stays_as_it_is() -> None:
    x = torch.arange(5.0)
    assert torch.equal(sketched(x, 5), x)
