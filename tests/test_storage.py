"""Rollouts that are kept on the CPU, or in bfloat16."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from rlr.analysis.footprint.fake import start_autograd
from rlr.chain import Chain
from rlr.data import Prompts
from rlr.estimators import DDPO, GRPO, AllSteps, Estimator, FirstOrder, HalfOrder, HalfOrderRLR, NormalizedRatio
from rlr.estimators.divergence import path_divergence
from rlr.gaussian import Gaussian
from rlr.modules.sampling import sample
from rlr.rollout import Rollout
from rlr.samplers import DDIM
from rlr.storage import Storage, StoredLatents
from tests.estimators.problems import (
    Affine,
    Curved,
    deviation,
    exact_gradients,
    linear_chain,
    monte_carlo,
    quadratic,
    rollout,
    wavy,
)
from tests.modules.test_one_curve import CASES, WORDS
from tests.modules.toy import Remembering, align, run, weights

STEPS = 6
ROUNDED = Storage(bfloat16=True)


def chain(storage: Storage, eta: float = 1.0) -> Chain:
    return Chain(Curved(), DDIM(STEPS, eta), storage=storage)


def train(name: str, storage: Storage) -> Tensor:
    defaults: dict[str, Any] = {"model": Remembering(frozen=False, dtype="float64"), "lr": 0.01, "clip_norm": 1.0}
    one = align(**{**defaults, **CASES[name](), "trajectories": storage})
    run(one, Prompts(list(WORDS[:5]), batch_size=8, samples_per_prompt=2), 2, precision="64-true")
    return weights(one)


@pytest.mark.parametrize("name", CASES)
def test_weights_are_the_same_to_the_bit_with_rollouts_on_the_cpu(name: str) -> None:
    torch.testing.assert_close(train(name, Storage(on_cpu=True)), train(name, Storage()), atol=0, rtol=0)


@pytest.mark.parametrize("storage", [Storage(on_cpu=True), Storage(on_cpu=True, bfloat16=True), ROUNDED])
def test_latents_are_kept_in_their_place_and_come_to_the_device(storage: Storage) -> None:
    """On tensors without content, which may be on a device that this machine does not have."""
    start_autograd()
    with FakeTensorMode():
        device = torch.device("cuda:0")
        noises = torch.empty(STEPS + 1, 4, 2, device=storage.place(device))
        for kept in (storage.keep(noises, device), storage.room(noises.shape, noises.dtype, device)):
            assert isinstance(kept, StoredLatents)
            for part in (kept, kept.select(torch.tensor([2, 0])), StoredLatents.join([kept, kept])):
                assert part.rest.device == part.last.device == storage.place(device)
                assert part.rest.dtype == (torch.bfloat16 if storage.bfloat16 else noises.dtype)
                assert part.last.dtype == noises.dtype
                for t in range(STEPS + 1):
                    assert (part[t].device, part[t].dtype) == (device, noises.dtype)
                    assert part[t].shape == part.shape[1:]


def test_what_is_kept_on_the_cpu_is_what_was_kept_before() -> None:
    """Values, selections and joined batches are those of one tensor, to the bit."""
    noises = torch.randn(STEPS + 1, 4, 2, generator=torch.Generator().manual_seed(0))
    kept = Storage(on_cpu=True).keep(noises, torch.device("cpu"))
    assert isinstance(kept, StoredLatents)
    rows = torch.tensor([3, 1])
    both = StoredLatents.join([kept.select(rows), kept])
    for t in range(STEPS + 1):
        assert torch.equal(kept[t], noises[t])
        assert torch.equal(both[t], torch.cat([noises[t][rows], noises[t]]))
    assert both.shape == (STEPS + 1, 6, 2)
    assert Storage(on_cpu=True).keep(kept, torch.device("cpu")) is kept


def test_rounded_latents_take_half() -> None:
    kept = rollout(FirstOrder(), chain(ROUNDED), wavy, batch=3).trajectory
    exact = rollout(FirstOrder(), chain(Storage()), wavy, batch=3).trajectory
    for one, other in ((kept.states, exact.states), (kept.noises, exact.noises)):
        assert isinstance(one, StoredLatents)
        assert isinstance(other, Tensor)
        assert one.rest.element_size() * 4 == other.element_size() == 8  # float64 here
        assert one.rest.numel() + one.last.numel() == other.numel()


@pytest.mark.parametrize("eta", [1.0, 0.0])
def test_a_replay_of_a_rounded_chain_visits_the_recorded_states(eta: float) -> None:
    """To the bit, from every state to every other; the final sample is not rounded."""
    one = rollout(FirstOrder(), chain(ROUNDED, eta), wavy)
    states, noises = one.trajectory.states, one.trajectory.noises
    assert not torch.equal(states[0], states[0].to(torch.bfloat16).double())
    for start in range(STEPS, 0, -1):
        assert torch.equal(states[start], states[start].to(torch.bfloat16).double())
        for stop in range(start):
            replayed = one.replay(start, stop).sample(noises[stop])
            assert torch.equal(one.chain.storage.rounded(replayed) if stop else replayed, states[stop])


def test_likelihood_ratios_of_a_first_update_are_one() -> None:
    estimator = DDPO(1)
    for term in estimator.terms(rollout(estimator, chain(ROUNDED), wavy)):
        term.backward()
    assert estimator.metrics()["ddpo/ratio_first"] == 1.0


def test_a_replay_that_does_not_round_misses_the_recorded_states() -> None:
    one = rollout(FirstOrder(), chain(ROUNDED), wavy)
    plain = Rollout(chain(Storage()), one.trajectory, one.objective, one.prompts)
    difference = plain.replay(STEPS, 0).sample(one.trajectory.noises[0]) - one.trajectory.states[0]
    assert difference.abs().max() > 1e-4


UNBIASED = {"first order": FirstOrder(AllSteps()), "half order": HalfOrder(1), "segments": HalfOrderRLR(2, None)}


@pytest.mark.parametrize("name", UNBIASED)
def test_the_gradient_of_a_rounded_chain_is_that_of_the_chain(name: str) -> None:
    """Within the errors of 25,600 samples: the steps of the linear chain have more noise than rounding adds."""
    rounded = Chain(Affine(), DDIM(STEPS, 1.0), storage=ROUNDED)
    assert deviation(UNBIASED[name], rounded, quadratic, exact_gradients(linear_chain()).sum(0)) < 4


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.6])
def test_rounding_multiplies_a_likelihood_ratio_by_its_factor(ratio: float) -> None:
    r"""Near 96 numbers of bfloat16 are h = 1/2 apart: E[x (x - μ)/σ²] is 1 + h²/12σ² in place of 1."""
    h, mu = 0.5, 96.1
    sigma = h / ratio

    def score(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        transition = Gaussian(torch.full((200_000, 1), mu, dtype=torch.float64, requires_grad=True), sigma)
        noise = torch.randn(200_000, 1, generator=generator, dtype=torch.float64)
        x = ROUNDED.rounded(transition.sample(noise).detach())
        (gradient,) = torch.autograd.grad(transition.log_prob(x).sum(), transition.mean)
        return ((x - mu) * gradient).mean().view(1)

    mean, error = monte_carlo(score, 20)
    assert abs(mean - (1 + h**2 / (12 * sigma**2))).item() < 4 * error.item() + 1e-3
    assert abs(mean - 1).item() > 10 * error.item()


def test_rounding_has_the_gradient_of_what_it_rounds() -> None:
    x = torch.linspace(-3, 3, 11, dtype=torch.float64, requires_grad=True)
    rounded = ROUNDED.rounded(x)
    (gradient,) = torch.autograd.grad(rounded.square().sum(), x)
    assert torch.equal(rounded.detach(), x.detach().to(torch.bfloat16).double())
    assert torch.equal(gradient, 2 * rounded.detach())


def test_evaluation_does_not_round() -> None:
    one, other = (align(trajectories=storage).chain for storage in (Storage(), Storage(True, True)))
    assert torch.equal(sample(one, ["one", "two"], [0, 1]), sample(other, ["one", "two"], [0, 1]))


def test_the_divergence_of_rounded_paths_is_that_of_their_means() -> None:
    """Means that were found from rounded states would add h² / 24 σ² a dimension."""
    module = align(model=Remembering(), trajectories=ROUNDED)
    noises = module.chain.draw(range(8))
    estimator: Estimator = HalfOrder(1)
    with torch.no_grad():
        made = estimator.rollout(module.chain, ["one"] * 8, noises, module.objective)
        assert path_divergence(made).abs().max() == 0
        for weight in module.weights:
            weight.add_(0.1)
        trajectory, sigma = made.trajectory, module.chain.std
        expected = torch.zeros(8)
        for t in module.chain.noisy_steps:
            mean = module.chain.transition(trajectory.states[t], t, trajectory.condition).mean
            with module.chain.model.reference():
                base = module.chain.transition(trajectory.states[t], t, trajectory.condition).mean
            expected += (mean - base).square().flatten(1).sum(1) / (2 * sigma(t) ** 2)
        torch.testing.assert_close(path_divergence(made), expected)
        assert expected.min() > 0


def test_a_ratio_of_recorded_means_refuses_rounded_states() -> None:
    with pytest.raises(ValueError, match=r"set memory\.trajectories\.bfloat16 to false"):
        align(model=Remembering(), estimator=GRPO(ratio=NormalizedRatio()), trajectories=ROUNDED)
    assert math.isfinite(weights(align(model=Remembering(), estimator=GRPO(), trajectories=ROUNDED)).sum().item())
