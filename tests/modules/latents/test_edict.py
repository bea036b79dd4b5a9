"""Coupled chains are undone exactly, their gradient is autograd's, and its memory does not grow with the steps."""

import pytest
import torch
from torch import Tensor

from rlr.analysis.measure import peak_bytes
from rlr.chain import Chain
from rlr.models import Frozen, Guidance, StagedPrompt
from rlr.modules.latents import edict
from rlr.modules.latents.edict import EDICT
from rlr.samplers import DDIM
from rlr.schedules import RectifiedFlow
from rlr.toy.models import Tiny
from tests.estimators.problems import Affine, Curved, Plane
from tests.modules.toy import AffineModel

CAPTIONS = ["a red circle on a white background", "two blue squares"]


def curved(steps: int) -> Chain:
    return Chain(Curved().requires_grad_(False), DDIM(steps, eta=0.0))


@pytest.fixture(scope="module")
def tiny():
    """Returns a function that returns the built-in model in a chain of so many steps."""
    models = {kind: Tiny(trainable=Frozen(), dtype=kind) for kind in ("float32", "float64")}
    return lambda steps, kind, scale=1.0: Chain(Guidance(models[kind], scale), DDIM(steps, eta=0.0))


def normal(chain: Chain, batch: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, *chain.model.latent_shape(chain.model.size)), generator=generator, dtype=dtype)


def twice(x: Tensor) -> Tensor:
    return torch.stack([x, x])


def error(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


# ---------------------------------------------------------------- inversion


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_the_toy_is_inverted(steps):
    chain = curved(steps)
    coupled, condition = EDICT(chain), chain.encode(["x"] * 5)
    start = torch.stack([normal(chain, 5, torch.float64, seed) for seed in (0, 1)])
    end = coupled.sample(start, condition)
    assert error(coupled.invert(end, condition), start) < 1e-10
    assert error(coupled.sample(coupled.invert(start, condition), condition), start) < 1e-10


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "steps", "scale", "most"),
    [
        ("float64", 5, 3.0, 1e-10),
        ("float64", 8, 1.0, 1e-10),
        ("float32", 20, 1.0, 1e-3),
        pytest.param("float32", 50, 1.0, 1e-3, marks=pytest.mark.slow),
        pytest.param("float32", 50, 7.5, 2e-3, marks=pytest.mark.slow),
    ],
    ids=["float64, guided", "float64", "float32", "float32, as published", "float32, guided as published"],
)
def test_the_built_in_model_is_inverted(tiny, kind, steps, scale, most):
    chain = tiny(steps, kind, scale)
    coupled, condition = EDICT(chain), chain.encode(CAPTIONS[:1])
    start = twice(normal(chain, 1, getattr(torch, kind)))
    end = coupled.sample(start, condition)
    assert error(coupled.invert(end, condition), start) < most
    assert error(end, start) > 1


@torch.no_grad()
def test_the_toy_is_inverted_in_float32_with_the_published_guidance():
    chain = Chain(Guidance(AffineModel(False), 7.5, "zero"), DDIM(50, eta=0.0)).eval()
    condition, start = chain.encode(["one", "six"]), twice(normal(chain, 2, torch.float32))

    def lost(mixing: float) -> float:
        coupled = EDICT(chain, mixing)
        return error(coupled.invert(coupled.sample(start, condition), condition), start)

    assert lost(0.93) < 1e-3
    assert lost(0.6) > 1


@torch.no_grad()
def test_the_two_chains_stay_together_if_steps_are_short(tiny):
    def gap(steps: int) -> float:
        chain = tiny(steps, "float32")
        end = EDICT(chain).sample(twice(normal(chain, 1, torch.float32)), chain.encode(CAPTIONS[:1]))
        return (end[0] - end[1]).abs().mean().item()

    assert gap(20) < 0.15 < gap(8)


@pytest.mark.parametrize("fault", ["order", "mixing"])
def test_another_inverse_is_none(fault, monkeypatch):
    chain = curved(8)
    coupled, condition = EDICT(chain), chain.encode(["x"] * 3)
    start = twice(normal(chain, 3, torch.float64))
    end = coupled.sample(start, condition)
    if fault == "order":
        monkeypatch.setattr(edict, "ordered", lambda pair, t: pair)
    else:
        coupled.mixing = 0.94
    assert error(coupled.invert(end, condition), start) > 1e-4


# ---------------------------------------------------------------- what it samples


class SameNoise(Plane):
    """Sees the same noise in everything."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def denoise(self, x: Tensor, time: float, condition: object) -> Tensor:
        alpha, sigma = self.schedule(self.size).levels(time)
        return (x - 0.3 * sigma) / alpha


def test_where_the_noise_is_the_same_everywhere_it_is_ddim():
    chain = Chain(SameNoise(), DDIM(9, eta=0.0))
    x = normal(chain, 4, torch.float64)
    end = EDICT(chain).sample(twice(x), chain.encode(["x"] * 4))
    expected = chain.sample(chain.encode(["x"] * 4), x.expand(10, 4, 2)).states[0]
    assert error(end, twice(expected)) < 1e-12


def test_it_approaches_ddim_with_the_number_of_steps():
    fine = curved(2000)
    x = normal(fine, 64, torch.float64)
    exact = fine.sample(fine.encode(["x"] * 64), x.expand(2001, 64, 2)).states[0]

    def gap(steps: int) -> float:
        chain = curved(steps)
        return error(EDICT(chain).sample(twice(x), chain.encode(["x"] * 64)), twice(exact))

    assert gap(160) < gap(40) / 3 < gap(10) / 9


def test_stages_of_prompts_are_read_by_step(tiny):
    chain = tiny(3, "float32")
    x = twice(normal(chain, 1, torch.float32))

    def end(*stages: str) -> Tensor:
        return EDICT(chain).sample(x, chain.encode([StagedPrompt("whole", stages)]))

    with torch.no_grad():
        plain = EDICT(chain).sample(x, chain.encode(["a red circle"]))
        assert torch.equal(end(*["a red circle"] * 3), plain)
        assert not torch.equal(end("a red circle", "a red circle", "a blue square"), plain)


# ---------------------------------------------------------------- gradient


def both_gradients(coupled: EDICT, start: Tensor, condition: object) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of a curved function of both ends: by :meth:`EDICT.pull_back`, by autograd; and the start found."""

    def reward(end: Tensor) -> Tensor:
        weights = torch.linspace(-1, 1, end.numel(), dtype=end.dtype).view_as(end)
        return (weights * torch.sin(end)).sum()

    leaf = start.clone().requires_grad_()
    (expected,) = torch.autograd.grad(reward(coupled.sample(leaf, condition)), leaf)
    end = coupled.sample(start, condition).detach().requires_grad_()
    (slope,) = torch.autograd.grad(reward(end), end)
    found, gradient = coupled.pull_back(end.detach(), slope, condition)
    return gradient, expected, found


@pytest.mark.parametrize("steps", [1, 4, 25])
def test_the_gradient_is_that_of_autograd(steps):
    chain = curved(steps)
    start = torch.stack([normal(chain, 5, torch.float64, seed) for seed in (0, 1)])
    gradient, expected, found = both_gradients(EDICT(chain), start, chain.encode(["x"] * 5))
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found, start, rtol=0, atol=1e-10)


def test_so_is_that_of_the_built_in_model(tiny):
    chain = tiny(3, "float64", 3.0)
    start = twice(normal(chain, 2, torch.float64))
    gradient, expected, _ = both_gradients(EDICT(chain), start, chain.encode(CAPTIONS))
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)
    assert expected.abs().max() > 1e-2


def test_a_gradient_that_misses_a_coupling_is_seen(monkeypatch):
    chain = curved(4)
    coupled = EDICT(chain)
    original_step = coupled._linearised
    monkeypatch.setattr(
        coupled, "_linearised", lambda x, g, *rest: (original_step(x, g, *rest)[0], torch.zeros_like(x))
    )
    start = twice(normal(chain, 5, torch.float64))
    gradient, expected, _ = both_gradients(coupled, start, chain.encode(["x"] * 5))
    assert error(gradient, expected) > 1e-2


def test_its_memory_does_not_grow_with_the_steps(tiny):
    def peaks(steps: int) -> tuple[int, int]:
        chain = tiny(steps, "float32")
        coupled, condition = EDICT(chain), chain.encode(CAPTIONS[:1])
        x = twice(normal(chain, 1, torch.float32))

        def inverting() -> None:
            with torch.no_grad():
                end = coupled.sample(x, condition)
                coupled.pull_back(end, torch.ones_like(end), condition)

        def recording() -> None:
            leaf = x.clone().requires_grad_()
            coupled.sample(leaf, condition).sum().backward()

        device = torch.device("cpu")
        return peak_bytes(inverting, device), peak_bytes(recording, device)

    (few, few_recorded), (many, many_recorded) = peaks(1), peaks(3)
    assert many <= 1.02 * few
    # and it would be seen
    assert many_recorded > 2 * few_recorded


# ---------------------------------------------------------------- refusals


def test_a_chain_that_begins_without_signal_is_refused():
    with pytest.raises(ValueError, match="that of its first state is 0"):
        EDICT(Chain(Affine(RectifiedFlow()), DDIM(4, eta=0.0)))


@pytest.mark.parametrize("mixing", [0.0, 1.1])
def test_mixing_is_a_share(mixing):
    with pytest.raises(ValueError, match="mixing must lie in"):
        EDICT(curved(2), mixing)
