import math

import pytest
import torch

from rlr.gaussian import Gaussian


def test_log_prob_equals_torch_summed() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, x = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    for std in (1e-3, 0.7, 20.0):
        expected = torch.distributions.Normal(mean, std).log_prob(x).flatten(1).sum(1)
        torch.testing.assert_close(Gaussian(mean, std).log_prob(x), expected, rtol=1e-12, atol=1e-9)


def test_log_prob_is_a_sum_and_not_a_mean() -> None:
    mean, x = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    once = Gaussian(mean, 0.5).log_prob(x)
    twice = Gaussian(mean.repeat(1, 2, 1, 1), 0.5).log_prob(x.repeat(1, 2, 1, 1))
    torch.testing.assert_close(twice, 2 * once)
    assert once.abs().min() > 10


def test_log_prob_of_half_is_taken_in_float32() -> None:
    mean = torch.zeros(1, 20000, dtype=torch.float16)
    value = Gaussian(mean, 0.01).log_prob(mean)
    assert value.dtype == torch.float32
    # 20000 · 3.69 lies beyond float16
    assert value.item() == pytest.approx(-20000 * (math.log(0.01) + 0.5 * math.log(2 * math.pi)), rel=1e-4)


def test_log_prob_of_a_deterministic_transition_raises() -> None:
    mean = torch.zeros(1, 2)
    for read in (Gaussian(mean, 0.0).log_prob, Gaussian(mean, 0.0).divergence):
        with pytest.raises(ValueError, match="eta > 0"):
            read(mean)


def test_divergence_equals_torch_summed() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    for std in (1e-3, 0.7, 20.0):
        normals = (torch.distributions.Normal(mean, std) for mean in (one, other))
        expected = torch.distributions.kl_divergence(*normals).flatten(1).sum(1)
        torch.testing.assert_close(Gaussian(one, std).divergence(other), expected, rtol=1e-10, atol=1e-9)
    assert Gaussian(one.half(), 0.01).divergence(other.half()).dtype == torch.float32


def test_sample_has_the_moments() -> None:
    noise = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = Gaussian(torch.full_like(noise, 3.0), 0.5).sample(noise)
    assert x.mean().item() == pytest.approx(3, abs=4 * 0.5 / len(x) ** 0.5)
    assert x.std().item() == pytest.approx(0.5, abs=4 * 0.5 / (2 * len(x)) ** 0.5)


def test_score_of_the_mean_is_the_noise() -> None:
    r"""Its gradient in :math:`\mu` at a sample is :math:`z / \sigma`: the half-order term's own formula."""
    mean = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    transition = Gaussian(mean, 0.25)
    (score,) = torch.autograd.grad(transition.log_prob(transition.sample(noise).detach()).sum(), mean)
    torch.testing.assert_close(score, noise / 0.25)
