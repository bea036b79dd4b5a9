"""The divergence from the base model and its gradient, against closed forms, by two routes, and one step at a time."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rlr.chain import Chain
from rlr.estimators import HalfOrder
from rlr.estimators.divergence import Penalty, path_divergence
from rlr.models import FullWeights, Guidance, StableDiffusion
from rlr.rollout import Rollout, unconditional
from rlr.samplers import DDIM, Ancestral
from rlr.schedules import RectifiedFlow
from tests.estimators import problems
from tests.estimators.problems import Affine, Curved, affine, linear_chain, monte_carlo, quadratic

MOVED = torch.tensor([0.12, -0.15, 0.2], dtype=torch.float64)
SHIFTED = torch.tensor([0.3, -0.25, 0.4], dtype=torch.float64)


@contextmanager
def restored(model: nn.Module, first: dict[str, Tensor]) -> Iterator[None]:
    now = {name: p.data for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.data = first[name]
    try:
        yield
    finally:
        for name, p in model.named_parameters():
            p.data = now[name]


def remember(model: nn.Module) -> nn.Module:
    """Lets a toy know the weights that it has now."""
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.reference = lambda: restored(model, first)
    return model


def moved_chain(by: Tensor = MOVED, steps: int = 6) -> Chain:
    model = remember(Affine())
    model.w.data += by
    return Chain(model, DDIM(steps, eta=1.0))


def rollout(chain: Chain, batch: int = 4, seed: int = 0) -> Rollout:
    return problems.rollout(HalfOrder(), chain, quadratic, batch, seed)


def gradient(penalty: Penalty, rollout: Rollout) -> Tensor:
    """Returns what the terms leave in ``.grad``, flat."""
    return gradient_and_path(penalty, rollout)[0]


def gradient_and_path(penalty: Penalty, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Returns what the terms leave in ``.grad``, flat, and the sum of their metric."""
    rollout.chain.zero_grad()
    path = torch.zeros(())
    for term in penalty.terms(rollout):
        term.loss.backward()
        path = path + term.metrics["kl/path"]
    return torch.cat([p.grad.flatten() for p in rollout.chain.model.trainable.values()]), path


def closed_form(chain: Chain) -> tuple[Tensor, Tensor, Tensor]:
    """Returns D, the direct part of its gradient, and the whole gradient, of the affine chain, by moments.

    x_t has mean m and variance v; the two models' means differ by a x + b; so E|a x + b|² = |a m + b|² + 2 a² v.
    """
    model = chain.model
    with model.reference():
        base = model.w.detach().clone()

    def line(w: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Slope and intercept of the mean of step t."""
        zero = torch.zeros(1, 2, dtype=torch.float64)

        def f(x: Tensor) -> Tensor:
            return chain.sampler.transition(affine(w, x, chain.grid.times[t]), x, t, chain.grid).mean[0, 0]

        return f(zero + 1) - f(zero), f(zero)

    def total(w: Tensor, states: Tensor) -> Tensor:
        """D with the weights of the steps and those that make the states apart."""
        m, v = torch.zeros(2, dtype=torch.float64), torch.ones((), dtype=torch.float64)
        terms = []
        for t in range(chain.steps, 0, -1):
            (k, c), (k0, c0) = line(w, t), line(base, t)
            a, b = k - k0, c - c0
            terms.append(((a * m + b).square().sum() + 2 * a**2 * v) / (2 * chain.std(t) ** 2))
            k, c = line(states, t)
            m, v = k * m + c, k**2 * v + chain.std(t) ** 2
        return torch.stack(terms).sum()

    w = model.w.detach().clone().requires_grad_()
    (direct,) = torch.autograd.grad(total(w, w.detach()), w)
    (full,) = torch.autograd.grad(total(w, w), w)
    return total(w, w).detach(), direct, full


def errors(draw: Callable[[int], Tensor], exact: Tensor, count: int = 75) -> float:
    """Returns the largest deviation of the mean of draws from ``exact``, in standard errors."""
    mean, error = monte_carlo(draw, count)
    return ((mean - exact) / error).abs().max().item()


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_the_closed_form() -> None:
    chain = moved_chain()
    value, _, _ = closed_form(chain)
    assert value > 0.5
    assert errors(lambda seed: path_divergence(rollout(chain, 256, seed)).mean(), value) < 4
    assert errors(lambda seed: path_divergence(rollout(chain, 256, seed)).mean(), 1.2 * value) > 10


def test_the_direct_gradient_is_what_it_says_and_not_the_whole() -> None:
    chain = moved_chain(SHIFTED)
    _, direct, full = closed_form(chain)

    def draw(seed: int) -> Tensor:
        return gradient(Penalty(1.0), rollout(chain, 256, seed))

    assert errors(draw, direct) < 4
    assert errors(draw, full) > 10


def test_the_full_gradient_is_unbiased() -> None:
    chain = moved_chain(SHIFTED)
    _, direct, full = closed_form(chain)

    def draw(seed: int) -> Tensor:
        return gradient(Penalty(1.0, full=True), rollout(chain, 256, seed))

    assert errors(draw, full) < 4
    assert errors(draw, direct) > 10


def test_the_gradient_is_the_slope_of_the_divergence_in_fixed_states() -> None:
    """By central differences, on a chain without closed form."""
    model = remember(Curved())
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(k), dtype=p.dtype)
    chain = Chain(model, DDIM(6, eta=1.0))
    sampled = rollout(chain, 5)
    found = gradient(Penalty(0.3), sampled)

    def value(shift: Tensor) -> float:
        nn.utils.vector_to_parameters(now + shift, model.parameters())
        return 0.3 * gradient_and_path(Penalty(0.3), sampled)[1].item()

    now = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    eye = 1e-5 * torch.eye(len(now), dtype=now.dtype)
    slopes = torch.tensor([(value(e) - value(-e)) / 2e-5 for e in eye], dtype=now.dtype)
    torch.testing.assert_close(found, slopes, rtol=1e-6, atol=1e-8)


# --- two routes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
def test_means_from_recorded_noises_and_from_the_model_agree(full: bool) -> None:
    sampled = rollout(moved_chain())
    _, path = gradient_and_path(Penalty(2.0, full), sampled)
    expected = path_divergence(sampled)
    assert expected.shape == (4,)
    torch.testing.assert_close(path, expected.mean(), rtol=1e-10, atol=0)
    farther = Rollout(moved_chain(2 * MOVED), sampled.trajectory, sampled.objective, sampled.prompts)
    assert gradient_and_path(Penalty(2.0), farther)[1] > 2 * expected.mean()


def test_the_weight_scales_the_gradient_and_nothing_else() -> None:
    sampled = rollout(moved_chain())
    (one, path), (three, same) = (gradient_and_path(Penalty(weight, full=True), sampled) for weight in (1.0, 3.0))
    torch.testing.assert_close(3 * one, three, rtol=1e-12, atol=0)
    assert torch.equal(path, same)


# --- the base model --------------------------------------------------------------------------------------------------


def test_at_the_base_value_and_gradient_vanish() -> None:
    for full in (False, True):
        sampled = rollout(moved_chain(0 * MOVED))
        slope, path = gradient_and_path(Penalty(1.0, full), sampled)
        assert slope.abs().max() == 0
        assert path == 0
        assert path_divergence(sampled).abs().max() < 1e-25


@pytest.fixture(scope="module")
def lora(random_sd: Callable[..., Path]) -> Chain:
    return Chain(Guidance(StableDiffusion(str(random_sd())), 3.0), DDIM(4, eta=1.0))


def test_a_lora_moves_away_from_its_base(lora: Chain) -> None:
    """Untouched it is its base, to the bit; larger additions are farther; all is left as it was."""
    prompts = ["a red circle", "two blue squares"]
    distances = []
    for size in (0.0, 0.02, 0.04):
        for k, (name, weight) in enumerate(lora.model.trainable.items()):
            if "lora_B" in name:
                noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(k))
                weight.data = size * noise
        kept = {name: weight.detach().clone() for name, weight in lora.model.trainable.items()}
        trajectory = lora.sample(lora.encode(prompts), lora.draw([0, 1]))
        sampled = Rollout(lora, trajectory, unconditional(quadratic), prompts)
        slope, path = gradient_and_path(Penalty(1.0), sampled)
        assert (slope.norm() > 0) == (size > 0)
        assert path_divergence(sampled).mean() == pytest.approx(path.item(), rel=1e-3, abs=1e-6)
        assert lora.model.trainable.keys() == kept.keys()
        assert all(torch.equal(weight, kept[name]) for name, weight in lora.model.trainable.items())
        distances.append(path.item())
    assert distances[0] == 0
    assert 1e-4 < distances[1] < distances[2]


def test_full_weights_are_refused(random_sd: Callable[..., Path]) -> None:
    chain = Chain(StableDiffusion(str(random_sd()), FullWeights("attn2")), DDIM(4, eta=1.0))
    with pytest.raises(
        ValueError, match=r"penalty: the divergence is from the base model, and FullWeights keeps no copy"
    ):
        Penalty(0.5).check(chain)


# --- noise -----------------------------------------------------------------------------------------------------------


def test_deterministic_steps_are_left_out() -> None:
    chain = Chain(remember(Affine(RectifiedFlow())), Ancestral(5))
    assert chain.std(1) == 0
    assert chain.noisy_steps == [2, 3, 4, 5]
    terms = list(Penalty(1.0).terms(rollout(chain)))
    assert [term.steps for term in terms] == [(2,), (3,), (4,), (5,)]
    Penalty(1.0, full=True).check(chain)


def test_a_chain_without_noise_is_refused() -> None:
    chain = Chain(remember(Affine()), DDIM(5, eta=0.0))
    with pytest.raises(ValueError, match=r"penalty: .* needs steps with noise, and DDIM has no noise.*eta"):
        Penalty(1.0).check(chain)
    assert path_divergence(rollout(chain)).tolist() == [0, 0, 0, 0]


def test_the_full_gradient_needs_noise_before_every_step_that_it_counts() -> None:
    class Gap(DDIM):
        def std(self, t, grid):
            return 0.0 if t == 3 else super().std(t, grid)

    chain = Chain(remember(Affine()), Gap(5))
    Penalty(1.0).check(chain)
    with pytest.raises(ValueError, match=r"penalty.full needs noise in step 3"):
        Penalty(1.0, full=True).check(chain)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_is_positive(weight: float) -> None:
    with pytest.raises(ValueError, match=r"penalty.weight: expected a positive number, got"):
        Penalty(weight)


# --- memory ----------------------------------------------------------------------------------------------------------


class Saved:
    """A tensor that some graph keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@pytest.mark.usefixtures("without_older_objects")
@pytest.mark.parametrize("full", [False, True])
def test_a_step_s_graph_is_gone_before_the_next_is_built(full: bool) -> None:
    chain, saved = Chain(remember(Curved()), DDIM(6, eta=1.0)), weakref.WeakSet()
    sampled, alive = rollout(chain), []

    def pack(tensor: Tensor) -> Saved:
        box = Saved(tensor)
        saved.add(box)
        return box

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        for term in Penalty(1.0, full).terms(sampled):
            alive.append(len(saved))
            term.loss.backward()
            del term
            gc.collect()
            assert len(saved) == 0
        held = list(Penalty(1.0, full).terms(sampled))
    assert len(held) == 6
    assert len(saved) == sum(alive)


def test_the_base_is_asked_once_a_step_and_never_with_gradient() -> None:
    chain, asked = moved_chain(), []
    denoise = chain.model.denoise
    chain.model.denoise = lambda *args: asked.append(torch.is_grad_enabled()) or denoise(*args)
    sampled = rollout(chain)
    asked.clear()
    path_divergence(sampled)
    assert asked == [False] * 6
    asked.clear()
    list(Penalty(1.0, full=True).terms(sampled))
    assert asked == [False, True] * 6


def test_a_linear_chain_without_memory_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"penalty: the divergence is from the base model, and Affine keeps no weights of before training",
    ):
        Penalty(1.0).check(linear_chain())
