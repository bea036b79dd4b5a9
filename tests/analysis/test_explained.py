"""The share of the reward's variance that a control variate explains, against the closed form of the affine chain."""

import pytest
import torch

from rlr.analysis.explained import controls, correlation, explained
from rlr.analysis.linear import TARGET, affine, linear_chain, quadratic
from rlr.analysis.problem import Problem
from rlr.chain import Chain
from rlr.rollout import unconditional

STEPS = 5


def closed_form(chain: Chain, j: int) -> float:
    r"""The squared correlation of :math:`-|x_0 - y|^2` and :math:`-|\hat x_0(x_j) - y|^2`, for normal states.

    For a normal pair with means m, n, variances s, t and covariance k: Cov(u², w²) = 2 k² + 4 m n k, Var(u²) = 2 s² + 4 m² s.
    """
    w = chain.model.get_parameter("w").detach()

    def means(t: int, x: torch.Tensor) -> torch.Tensor:
        return chain.sampler.transition(affine(w, x, chain.grid.times[t]), x, t, chain.grid).mean

    m, v, slope = torch.zeros(1, 2, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64), 1.0
    here = (m, v)
    for t in range(chain.steps, 0, -1):
        k = (means(t, torch.ones_like(m)) - means(t, torch.zeros_like(m)))[0, 0]
        m, v = means(t, m), k**2 * v + chain.std(t) ** 2
        slope = 1.0 if t - 1 >= j else slope * k.item()
        here = (m, v) if t - 1 == j else here
    u, s = m[0] - TARGET, v
    w_mean, t_var = affine(w, here[0], chain.grid.times[j])[0] - TARGET, w[0] ** 2 * here[1]
    covariance = slope * here[1] * w[0]
    both = (2 * covariance**2 + 4 * u * w_mean * covariance).sum()
    return (both**2 / ((2 * s**2 + 4 * u**2 * s).sum() * (2 * t_var**2 + 4 * w_mean**2 * t_var).sum())).item()


def test_the_shares_are_those_of_the_closed_form() -> None:
    problem = Problem(linear_chain(STEPS), unconditional(quadratic), ["x"] * 500)
    found = explained([problem.rollout(number) for number in range(8)])
    assert [e.step for e in found] == [5, 4, 3, 2]
    for e in found:
        assert e.share == pytest.approx(closed_form(problem.chain, e.step - 1), abs=4 * e.error)
    # a wrong state is seen
    assert abs(found[0].share - closed_form(problem.chain, 1)) > 10 * found[0].error


def test_the_control_of_the_sample_is_its_reward() -> None:
    rollout = Problem(linear_chain(3), unconditional(quadratic), ["x"] * 4).rollout(0)
    found = controls(rollout)
    assert found.shape == (3, 4)
    assert torch.equal(found[0], rollout.rewards)
    assert not found.requires_grad


def test_few_samples_of_independent_numbers_explain_nothing_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = [correlation(*torch.randn(2, 8, generator=generator))[0] for _ in range(4000)]
    # without the correction the mean would be 1/7; what is below 0 counts as 0
    assert sum(shares) / len(shares) < 0.1
    assert correlation(torch.arange(5.0), 3 - 2 * torch.arange(5.0))[0] == pytest.approx(1)
    assert correlation(torch.ones(5), torch.arange(5.0))[0] != correlation(torch.ones(5), torch.arange(5.0))[0]
