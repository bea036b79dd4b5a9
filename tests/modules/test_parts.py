"""The parts of the training step: objective, gradient accumulator, profiler."""

import math
import mmap
import os
import re
import time
import warnings

import pytest
import torch
from torch import nn

from rlr.estimators.base import Term
from rlr.modules.gradients import GradientAccumulator
from rlr.modules.profiler import Profiler
from rlr.objective import Objective
from tests.modules.toy import AffineModel, Level

PROMPTS = ["one", "two", "three"]


def objective(reward=None, decode=None, **settings):
    model = AffineModel()
    if decode is not None:
        model.decode = lambda x, frames=None: decode(x)
    return Objective(model, reward or Level(), **settings)


# ---------------------------------------------------------------- objective


def test_is_the_reward_of_the_decoded_latent():
    x, made = torch.randn(3, 3, 2, 2), objective()
    scores = made.of_frames()(x, PROMPTS)
    torch.testing.assert_close(scores.values, Level()(torch.sigmoid(x), PROMPTS))
    assert torch.equal(scores.objective, scores.values)
    assert (made.calls, scores.fault) == (3, None)
    made.of_frames()(x, PROMPTS)
    assert made.calls == 6


def test_is_differentiable_in_the_latent():
    x = torch.randn(3, 3, 2, 2, requires_grad=True)
    objective().of_frames()(x, PROMPTS).objective.sum().backward()
    assert x.grad.abs().min() > 0


def test_a_reward_of_which_lower_is_better_is_negated_for_estimators_alone():
    class Cost(Level):
        higher_is_better = False

    x, made = torch.randn(3, 3, 2, 2), objective(Cost())
    scores, expected = made.of_frames()(x, PROMPTS), Level()(torch.sigmoid(x), PROMPTS)
    torch.testing.assert_close(scores.objective, -expected)
    torch.testing.assert_close(scores.values, expected)
    torch.testing.assert_close(made.rate(torch.sigmoid(x), PROMPTS).values, expected)


def spoil(x):
    """Pixels of three samples, the second one of which has a pixel that is infinite."""
    pixels = torch.sigmoid(x)
    pixels[1, 0, 0, 0] = torch.inf
    return pixels


class Spoiled(Level):
    def forward(self, samples, prompts):
        return super().forward(samples, prompts) * torch.tensor([1, 1, torch.nan])


@pytest.mark.parametrize(
    ("settings", "stated"),
    [
        (
            {"decode": spoil},
            "AffineModel.decode returned pixels that are not finite for 1 of 3 samples, .* prompt 'two'",
        ),
        ({"reward": Spoiled()}, "the reward Spoiled returned scores that are not finite for 1 of 3 .* prompt 'three'"),
        # the first cause, not what follows from it
        ({"decode": spoil, "reward": Spoiled()}, "AffineModel.decode returned pixels"),
    ],
)
def test_what_is_not_finite_is_named_with_the_first_prompt(settings, stated):
    scores = objective(**settings).of_frames()(torch.randn(3, 3, 2, 2), PROMPTS)
    assert re.match(stated, scores.fault)


@pytest.mark.parametrize(
    ("returned", "shape"),
    [(lambda r: r.mean(), r"\(\)"), (lambda r: r[:, None], r"\(3, 1\)"), (lambda r: r[:2], r"\(2,\)")],
)
def test_wrong_shapes(returned, shape):
    class Wrong(Level):
        def forward(self, samples, prompts):
            return returned(super().forward(samples, prompts))

    stated = rf"the reward Wrong: expected one number a sample, a tensor of shape \(3,\), got Tensor of shape {shape}"
    with pytest.raises(ValueError, match=stated):
        objective(Wrong()).of_frames()(torch.randn(3, 3, 2, 2), PROMPTS)


def test_pixels_out_of_range_are_noticed_once():
    x = torch.linspace(-1, 1, 36).view(3, 3, 2, 2)
    stated = r"AffineModel.decode returned pixels in \[-1, 1\], expected \[0, 1\]"
    made = objective(decode=lambda x: x)
    with pytest.raises(ValueError, match=stated):
        made.of_frames()(x, PROMPTS)
    # rounding in half precision is no mistake
    objective(decode=lambda x: 1.004 * (x + 1) / 2).of_frames()(x, PROMPTS)


def test_a_constant_reward_is_warned_of_once():
    made = objective(patience=3)
    constant, varied = torch.full((4,), 0.5), torch.arange(4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rewards in (constant, constant, varied, constant, constant, torch.ones(1), constant, constant):
            made.warn_if_constant(rewards)
    with pytest.warns(UserWarning, match=r"Level gave all samples of a round the same score \(0.5\) 3 times in a row"):
        made.warn_if_constant(constant)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.warn_if_constant(constant)


# ---------------------------------------------------------------- gradient accumulator


def terms(weights):
    """Three terms whose gradients are known: (3, 0), (0, 4) and (1, 0)."""
    (w,) = weights
    yield Term("a", 3 * w[0], (2, 1))
    yield Term("b", 4 * w[1], (4, 3))
    yield Term("a", w[0], (5,))


@pytest.mark.parametrize("held", [None, (10.0, 20.0)])
def test_gradient_accumulator_adds_up_and_reports_apart(held):
    weights = [nn.Parameter(torch.zeros(2))]
    weights[0].grad = None if held is None else torch.tensor(held)
    accumulator = GradientAccumulator(weights)
    for term in terms(weights):
        accumulator.add(term, torch.Tensor.backward)
    assert weights[0].grad.tolist() == ([4, 4] if held is None else [14, 24])
    assert {name: norm.item() for name, norm in accumulator.norms().items()} == {"a": 4, "b": 4}
    assert accumulator.cosines()[("a", "b")].item() == 0
    assert accumulator.failure() is None


def test_gradient_accumulator_is_autograd_to_the_bit():
    def total(by_kind):
        weights = [nn.Parameter(torch.linspace(-1, 1, 50)), nn.Parameter(torch.ones(3))]
        accumulator = GradientAccumulator(weights, by_kind)
        for i in range(5):
            accumulator.add(Term(f"{i % 2}", (weights[0] * (i + 0.1)).sin().sum(), (i,)), torch.Tensor.backward)
        return weights[0].grad

    assert torch.equal(total(True), total(False))


@pytest.mark.parametrize("by_kind", [True, False])
@pytest.mark.parametrize(("spoil", "what"), [(math.nan, "loss"), (math.inf, "loss"), (None, "gradient")])
def test_gradient_accumulator_names_the_first_failure(by_kind, spoil, what):
    weights = [nn.Parameter(torch.zeros(2))]
    accumulator = GradientAccumulator(weights, by_kind)
    for i, term in enumerate(terms(weights)):
        w = weights[0][0]
        bad = term.loss * spoil if spoil is not None else term.loss + (w**2 + 1e-60).sqrt()
        accumulator.add(term if i != 1 else Term(term.name, bad, term.steps), torch.Tensor.backward)
    assert accumulator.failure() == f"the {what} of the b term of steps t = 4 … 3 is not finite"
    assert accumulator.failure(gradients=False) == (None if what == "gradient" else accumulator.failure())


# ---------------------------------------------------------------- profiler


def touch(size: int) -> None:
    """Uses so many bytes for a moment: pages of their own, since an allocator may have free ones that are resident."""
    with mmap.mmap(-1, size) as pages:
        for place in range(0, size, mmap.PAGESIZE):
            pages[place] = 1


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system tells no peak of memory")
def test_profiler_sees_memory_that_came_and_went():
    profiler = Profiler(torch.device("cpu"))
    with profiler.section("small"):
        torch.zeros(10)
    with profiler.section("large"):
        touch(64 * 2**20)
    with profiler.section("small after large"):
        torch.zeros(10)
    assert profiler.peak["large"] > profiler.peak["small"] + 50
    assert profiler.peak["small after large"] < profiler.peak["large"] - 30


def test_profiler_adds_up_sections_of_one_name(monkeypatch):
    clock = iter([1.0, 3.0, 10.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    profiler = Profiler(torch.device("cpu"))
    profiler.start()
    profiler.stop("a")
    with profiler.section("a"):
        pass
    assert profiler.seconds == {"a": 3.0}
