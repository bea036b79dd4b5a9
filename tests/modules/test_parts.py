"""The parts of the training step: objective, ledger, meter."""

import math
import mmap
import os
import time
import warnings

import pytest
import torch
from torch import nn

from rlr.estimators.base import Term
from rlr.modules.ledger import Ledger
from rlr.modules.meter import Meter
from rlr.modules.objective import Objective
from tests.modules.toy import AffineModel, Level

PROMPTS = ["one", "two", "three"]


def objective(reward=None, decode=None, **settings):
    model = AffineModel()
    if decode is not None:
        model.decode = decode
    return Objective(model, reward or Level(), **settings)


# ---------------------------------------------------------------- objective


def test_is_the_reward_of_the_decoded_latent():
    x, made = torch.randn(3, 3, 2, 2), objective()
    torch.testing.assert_close(made.of(PROMPTS)(x), Level()(torch.sigmoid(x), PROMPTS))
    assert made.calls == 3
    made.of(PROMPTS)(x)
    assert made.calls == 6


def test_is_differentiable_in_the_latent():
    x = torch.randn(3, 3, 2, 2, requires_grad=True)
    objective().of(PROMPTS)(x).sum().backward()
    assert x.grad.abs().min() > 0


def test_a_reward_of_which_less_is_better_is_turned_round():
    class Cost(Level):
        higher_is_better = False

    x, made = torch.randn(3, 3, 2, 2), objective(Cost())
    torch.testing.assert_close(made.of(PROMPTS)(x), -Level()(torch.sigmoid(x), PROMPTS))
    torch.testing.assert_close(made.rate(torch.sigmoid(x), PROMPTS), Level()(torch.sigmoid(x), PROMPTS))


@pytest.mark.parametrize(
    ("returned", "shape"),
    [(lambda r: r.mean(), r"\(\)"), (lambda r: r[:, None], r"\(3, 1\)"), (lambda r: r[:2], r"\(2,\)")],
)
def test_wrong_shapes(returned, shape):
    class Wrong(Level):
        def forward(self, samples, prompts):
            return returned(super().forward(samples, prompts))

    told = rf"the reward Wrong: expected one number a sample, a tensor of shape \(3,\), got Tensor of shape {shape}"
    with pytest.raises(ValueError, match=told):
        objective(Wrong()).of(PROMPTS)(torch.randn(3, 3, 2, 2))


def test_pixels_out_of_range_are_noticed_once():
    x = torch.linspace(-1, 1, 36).view(3, 3, 2, 2)
    told = r"AffineModel.decode returned pixels in \[-1, 1\], and rewards read \[0, 1\]"
    made = objective(decode=lambda x: x)
    with pytest.raises(ValueError, match=told):
        made.of(PROMPTS)(x)
    # rounding in half precision is no mistake
    objective(decode=lambda x: 1.004 * (x + 1) / 2).of(PROMPTS)(x)


def test_a_constant_reward_is_warned_of_once():
    made = objective(patience=3)
    constant, varied = torch.full((4,), 0.5), torch.arange(4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rewards in (constant, constant, varied, constant, constant, torch.ones(1), constant, constant):
            made.watch(rewards)
    with pytest.warns(UserWarning, match=r"Level gave all samples of a batch the same score \(0.5\) 3 times in a row"):
        made.watch(constant)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.watch(constant)


# ---------------------------------------------------------------- ledger


def terms(weights):
    """Three terms whose gradients are known: (3, 0), (0, 4) and (1, 0)."""
    (w,) = weights
    yield Term("a", 3 * w[0], (2, 1), torch.zeros(1))
    yield Term("b", 4 * w[1], (4, 3), torch.zeros(1))
    yield Term("a", w[0], (5,), torch.zeros(1))


@pytest.mark.parametrize("held", [None, (10.0, 20.0)])
def test_ledger_adds_up_and_tells_apart(held):
    weights = [nn.Parameter(torch.zeros(2))]
    weights[0].grad = None if held is None else torch.tensor(held)
    ledger = Ledger(weights)
    for term in terms(weights):
        ledger.enter(term, torch.Tensor.backward)
    assert weights[0].grad.tolist() == ([4, 4] if held is None else [14, 24])
    assert {name: norm.item() for name, norm in ledger.norms().items()} == {"a": 4, "b": 4}
    assert ledger.cosines()[("a", "b")].item() == 0
    assert ledger.failure() is None


def test_ledger_is_autograd_to_the_bit():
    def total(by_kind):
        weights = [nn.Parameter(torch.linspace(-1, 1, 50)), nn.Parameter(torch.ones(3))]
        ledger = Ledger(weights, by_kind)
        for i in range(5):
            ledger.enter(
                Term(f"{i % 2}", (weights[0] * (i + 0.1)).sin().sum(), (i,), torch.zeros(1)), torch.Tensor.backward
            )
        return weights[0].grad

    assert torch.equal(total(True), total(False))


@pytest.mark.parametrize("by_kind", [True, False])
@pytest.mark.parametrize(("spoil", "what"), [(math.nan, "loss"), (math.inf, "loss"), (None, "gradient")])
def test_ledger_names_the_first_failure(by_kind, spoil, what):
    weights = [nn.Parameter(torch.zeros(2))]
    ledger = Ledger(weights, by_kind)
    for i, term in enumerate(terms(weights)):
        w = weights[0][0]
        bad = term.loss * spoil if spoil is not None else term.loss + (w**2 + 1e-60).sqrt()
        ledger.enter(term if i != 1 else Term(term.name, bad, term.steps, term.rewards), torch.Tensor.backward)
    assert ledger.failure() == f"the {what} of the b term of steps t = 4 … 3 is not finite"
    assert ledger.failure(gradients=False) == (None if what == "gradient" else ledger.failure())


# ---------------------------------------------------------------- meter


def touch(size: int) -> None:
    """Uses so many bytes for a moment: pages of their own, since an allocator may have free ones that are resident."""
    with mmap.mmap(-1, size) as pages:
        for place in range(0, size, mmap.PAGESIZE):
            pages[place] = 1


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system tells no peak of memory")
def test_meter_sees_memory_that_came_and_went():
    meter = Meter(torch.device("cpu"))
    with meter.phase("small"):
        torch.zeros(10)
    with meter.phase("large"):
        touch(64 * 2**20)
    with meter.phase("small after large"):
        torch.zeros(10)
    assert meter.peak["large"] > meter.peak["small"] + 50
    assert meter.peak["small after large"] < meter.peak["large"] - 30


def test_meter_adds_up_phases_of_one_name(monkeypatch):
    clock = iter([1.0, 3.0, 10.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    meter = Meter(torch.device("cpu"))
    meter.start()
    meter.stop("a")
    with meter.phase("a"):
        pass
    assert meter.seconds == {"a": 3.0}
