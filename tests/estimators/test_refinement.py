"""Predictions of several steps: how many steps, how many passes, and how many graphs of the network at once."""

import re
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlr.analysis.measure import counted
from rlr.chain import Chain
from rlr.estimators import HalfOrder, HalfOrderRLR, LookAhead, SampleClip
from rlr.estimators.control_variate import Predictions
from rlr.models import Guidance, LoRA
from rlr.models.base import Condition
from rlr.rollout import unconditional
from rlr.samplers import DDIM
from rlr.toy.models import Tiny
from tests.config_cover import filled_in
from tests.estimators.problems import Curved, estimate, rollout, wavy

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "look_ahead.md"


def pathwise(control: LookAhead) -> HalfOrderRLR:
    """The estimator of the shipped configs: first order on two steps, and the pathwise half on all others."""
    return HalfOrderRLR(2, None, 2, control=control, clip=SampleClip())


def look_ahead(stride: int | None = None, prediction_steps: int | None = None) -> LookAhead:
    """The look-ahead of the shipped configs."""
    return LookAhead(
        ratio_weight=0.0, start_value=False, stride=stride, clip=SampleClip(), prediction_steps=prediction_steps
    )


# --- the number of steps --------------------------------------------------------------------------------------------


def test_a_stride_makes_longer_predictions_in_longer_chains_and_a_number_of_steps_does_not() -> None:
    lengths = {
        T: (LookAhead(stride=4).steps_from(T, T), LookAhead(prediction_steps=3).steps_from(T, T)) for T in (10, 20, 50)
    }
    assert lengths == {10: (3, 3), 20: (5, 3), 50: (13, 3)}
    assert LookAhead().steps_from(50, 50) == 1


def test_in_ten_steps_three_steps_of_a_prediction_are_the_stride_4() -> None:
    """So the records of the stride hold for the shipped configs, too."""
    strided, limited = LookAhead(stride=4), LookAhead(prediction_steps=3)
    assert [limited.steps_from(j, 10) for j in range(1, 11)] == [strided.steps_from(j, 10) for j in range(1, 11)]
    chain = curved(10, False)
    found = [
        estimate(pathwise(look_ahead(**given)), chain, wavy, 8, 0) for given in ({"stride": 4}, {"prediction_steps": 3})
    ]
    assert torch.equal(*found)


def test_no_prediction_has_more_steps_than_the_largest_number() -> None:
    for most in range(1, 8):
        control = LookAhead(prediction_steps=most)
        for steps in range(1, 61):
            found = [control.steps_from(j, steps) for j in range(1, steps + 1)]
            assert found == sorted(found)
            assert (found[0], max(found) <= most) == (1, True)


def controls(config: object) -> list[dict[str, object]]:
    """The arguments of every look-ahead that a config names."""
    if isinstance(config, list):
        return [found for inner in config for found in controls(inner)]
    if not isinstance(config, dict):
        return []
    own = [config.get("init_args", {})] if config.get("class_path") == "LookAhead" else []
    return own + [found for inner in config.values() for found in controls(inner)]


def longest(config: dict[str, object]) -> list[int]:
    """The numbers of steps of the longest predictions of a config."""
    steps = config["model"]["init_args"]["sampler"]["init_args"]["steps"]  # type: ignore[index]
    kept = ("stride", "prediction_steps")
    given = [{name: found[name] for name in kept if name in found} for found in controls(config["model"])]
    return [LookAhead(**found).steps_from(steps, steps) for found in given]  # type: ignore[arg-type]


def test_predictions_of_shipped_configs_have_three_steps_at_most() -> None:
    paths = [path for kind in ("image", "video") for path in sorted((ROOT / "configs" / kind).glob("*.yaml"))]
    configs = {path.stem: filled_in(path) for path in paths}
    found = {name: longest(config) for name, config in configs.items() if controls(config.get("model"))}
    assert {"tiny_look_ahead", "sdxl_half_order_pickscore", "cogvideox_half_order_pickscore"} <= found.keys()
    assert {name: lengths for name, lengths in found.items() if max(lengths) > 3} == {}
    # a stride of 4 in 50 steps is noticed
    (control,) = controls(configs["sdxl_half_order_pickscore"])
    control.update(prediction_steps=None, stride=4)
    assert longest(configs["sdxl_half_order_pickscore"]) == [13]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LookAhead(prediction_steps=0), "LookAhead.prediction_steps: expected at least 1, got 0"),
        (
            lambda: LookAhead(stride=4, prediction_steps=3),
            "got stride=4 and prediction_steps=3; set one of them to None",
        ),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- recomputation --------------------------------------------------------------------------------------------------


class PartlyFrozen(Curved):
    """Its first layer is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden.requires_grad_(False)


class AllFrozen(Curved):
    """None of its weights is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


def curved(steps: int, checkpoint: bool, kind: type[Curved] = Curved) -> Chain:
    return Chain(kind(), DDIM(steps, eta=1.0), checkpoint)


@pytest.mark.parametrize("kind", [Curved, PartlyFrozen])
@pytest.mark.parametrize("stride", [1, 2])
def test_recomputation_changes_no_bit_of_the_gradient(kind: type[Curved], stride: int) -> None:
    def gradient(checkpoint: bool, control: LookAhead) -> Tensor:
        return estimate(HalfOrderRLR(2, None, 2, control=control), curved(8, checkpoint, kind), wavy, 8, 0)

    for make in (lambda: look_ahead(stride), lambda: LookAhead(stride=stride, increments=True)):
        assert torch.equal(gradient(True, make()), gradient(False, make()))
    # the predictions take part in the gradient
    assert (gradient(False, look_ahead(stride)) - gradient(False, look_ahead())).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [Curved, PartlyFrozen, AllFrozen])
def test_recomputation_changes_no_bit_of_values_and_slopes(kind: type[Curved]) -> None:
    def found(checkpoint: bool) -> list[Tensor]:
        sampled = rollout(HalfOrder(1), curved(8, checkpoint, kind), wavy)
        predictions = Predictions(LookAhead(stride=2), sampled, HalfOrder(1).partition(sampled.chain))
        return [of(j) for j in (7, 4) for of in (predictions.slope, predictions.value)]

    for recomputed, kept in zip(found(True), found(False), strict=True):
        assert torch.equal(recomputed, kept)


def test_recomputation_changes_no_bit_of_the_gradient_of_a_lora_under_guidance() -> None:
    model, generator = Guidance(Tiny(trainable=LoRA(rank=2)), 3.0).double(), torch.Generator().manual_seed(0)
    for weight in model.trainable.values():
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)

    def gradient(checkpoint: bool) -> Tensor:
        chain, estimator = Chain(model, DDIM(4, eta=1.0), checkpoint), HalfOrder(2, control=look_ahead(1))
        chain.zero_grad()
        noises, square = chain.draw([1, 2]).double(), unconditional(lambda x: x.flatten(1).square().mean(1))
        for term in estimator.terms(estimator.rollout(chain, ["a red circle"] * 2, noises, square)):
            term.backward()
        return torch.cat([weight.grad.flatten() for weight in model.trainable.values() if weight.grad is not None])

    kept = gradient(False)
    assert torch.equal(gradient(True), kept)
    assert kept.abs().max() > 0


def test_without_gradient_a_prediction_makes_each_pass_once_and_has_no_graph() -> None:
    for checkpoint in (False, True):
        chain = curved(8, checkpoint)
        sampled = rollout(HalfOrder(1), chain, wavy)
        x, condition = sampled.trajectory.states[8], sampled.trajectory.condition
        with torch.no_grad(), counted(chain, len(x)) as passes:
            found = chain.refine(chain.denoise(x, 8, condition), x, 8, condition, 4)
        assert (passes.forward, passes.backward, found.requires_grad) == (4, 0, False)
        with_gradient = chain.refine(chain.denoise(x, 8, condition), x, 8, condition, 4)
        assert torch.equal(found, with_gradient)


# --- what an update costs -------------------------------------------------------------------------------------------


class Counting(Curved):
    """Knows how many of its passes have their activations in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.most = 0

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        activations = self.hidden(torch.cat((x, torch.full_like(x[:, :1], time)), 1)).sin()
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(activations.untyped_storage(), self._leave)
        return self.out(activations)

    def _leave(self) -> None:
        self.alive -= 1


def costs(steps: int, control: LookAhead, checkpoint: bool = False) -> tuple[int, int, int]:
    """The passes forward and backward of an update, rollout included, and the most graphs of the network at once."""
    model, estimator = Counting(), pathwise(control)
    chain = Chain(model, DDIM(steps, eta=1.0), checkpoint)
    with counted(chain, 4) as passes:
        for term in estimator.terms(rollout(estimator, chain, wavy)):
            term.backward()
            del term
    return int(passes.forward), int(passes.backward), model.most


def test_recomputation_keeps_one_graph_of_a_prediction_and_makes_every_pass_backward_once_more_forward() -> None:
    for steps, stride in ((10, 4), (20, 4), (12, 1)):
        forward, backward, graphs = costs(steps, look_ahead(stride))
        assert graphs == LookAhead(stride=stride).steps_from(steps - 2, steps) >= 2
        assert costs(steps, look_ahead(stride), checkpoint=True) == (forward + backward, backward, 1)


COLUMNS = {
    "one step": look_ahead,
    "`stride: 4`": lambda: look_ahead(4),
    "`prediction_steps: 3`": lambda: look_ahead(None, 3),
}
"""The columns of the table of costs in the documentation."""


def stated() -> dict[tuple[int, str], tuple[int, ...]]:
    """What the documentation states of each chain and prediction."""
    lines = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    return {
        (int(steps), name): tuple(map(int, re.findall(r"\d+", cell)))
        for steps, cells in lines
        for name, cell in zip(COLUMNS, cells.split(" | "), strict=True)
    }


def test_the_documentation_states_what_an_update_costs() -> None:
    found = {
        (steps, name): (*costs(steps, make()), costs(steps, make(), checkpoint=True)[0])
        for steps in (10, 20, 50)
        for name, make in COLUMNS.items()
    }
    assert stated() == found
    assert f"| $T$ | {' | '.join(COLUMNS)} |" in PAGE.read_text()
