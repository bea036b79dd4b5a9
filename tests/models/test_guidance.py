from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from rlr.models import Condition, DiffusionModel, Guidance, Interval, ModelWrapper, Size
from rlr.models.prediction import noise, velocity
from rlr.schedules import RectifiedFlow

FLOW = RectifiedFlow()


class Recorder(DiffusionModel):
    """Estimates a prompt's length times the latent, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.size = Size(1, 2)
        self.weight = nn.Parameter(torch.ones(()))
        self.calls: list[tuple[Tensor, Tensor]] = []

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (size.width,)

    def schedule(self, size: Size) -> RectifiedFlow:
        return FLOW

    def encode(self, prompts: Sequence[str]) -> Condition:
        return Condition({"length": torch.tensor([[float(len(prompt))] for prompt in prompts])})

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        self.calls.append((x, condition.tensors["length"]))
        return self.weight * condition.tensors["length"] * x

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return x.sigmoid()


X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_both_estimates_come_from_one_call_prompts_first() -> None:
    model = Recorder()
    guided = Guidance(model, 2.0, negative="four")
    estimate = guided.denoise(X, 0.5, guided.encode(["a", "bb"]))
    ((x, lengths),) = model.calls
    assert torch.equal(x, torch.cat([X, X]))
    assert lengths.flatten().tolist() == [1, 2, 4, 4]
    torch.testing.assert_close(estimate, torch.tensor([[4 + 2 * (1 - 4)], [4 + 2 * (2 - 4)]]) * X)


def test_scale_one_is_one_call_on_the_prompts() -> None:
    model = Recorder()
    guided = Guidance(model, 1.0, negative="four")
    assert torch.equal(
        guided.denoise(X, 0.5, guided.encode(["a", "bb"])), model.denoise(X, 0.5, model.encode(["a", "bb"]))
    )
    assert len(model.calls[0][0]) == 2


def test_scale_zero_is_the_negative_prompt() -> None:
    guided = Guidance(Recorder(), 0.0, negative="four")
    torch.testing.assert_close(guided.denoise(X, 0.5, guided.encode(["a", "bb"])), 4 * X)


def test_a_condition_can_be_selected_and_repeated_by_sample() -> None:
    guided = Guidance(Recorder(), 2.0, negative="four")
    condition = guided.encode(["a", "bb"])
    first, second = guided.denoise(X, 0.5, condition)
    picked = condition.map(lambda c: c[[1, 0, 1]])
    torch.testing.assert_close(guided.denoise(X[[1, 0, 1]], 0.5, picked), torch.stack([second, first, second]))


@pytest.mark.parametrize("prediction", [noise, velocity])
def test_guiding_estimates_is_guiding_outputs(prediction: object) -> None:
    positive, negative, x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha, sigma, scale = 0.6, 0.8, 7.5
    of_outputs = prediction(negative + scale * (positive - negative), x, alpha, sigma)
    first, second = prediction(positive, x, alpha, sigma), prediction(negative, x, alpha, sigma)
    torch.testing.assert_close(second + scale * (first - second), of_outputs)


def test_the_rest_is_the_models() -> None:
    model = Recorder()
    guided = Guidance(model)
    assert guided.size == model.size
    assert guided.latent_shape(Size(1, 3)) == (3,)
    assert guided.schedule(model.size) is FLOW
    assert list(guided.trainable.values()) == [model.weight]
    assert torch.equal(guided.decode(X), X.sigmoid())
    assert not guided.train().training
    assert not model.training


def test_negative_scale_raises() -> None:
    for scale in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="must not be negative"):
            Guidance(Recorder(), scale)


def test_a_model_without_memory_of_its_base_says_so() -> None:
    with pytest.raises(ValueError, match="load the base model a second time"):
        Guidance(Recorder()).reference()


def test_two_calls_give_what_one_gives() -> None:
    model = Recorder()
    together, apart = (Guidance(model, 2.0, "four", batched) for batched in (True, False))
    condition = together.encode(["a", "bb"])
    expected = together.denoise(X, 0.5, condition)
    model.calls.clear()
    torch.testing.assert_close(apart.denoise(X, 0.5, condition), expected, rtol=0, atol=0)
    assert [len(x) for x, _ in model.calls] == [2, 2]


def test_a_scale_may_depend_on_time() -> None:
    model = Recorder()
    guided, constant = Guidance(model, Interval(2.0, 0.3, 0.6), "four"), Guidance(model, 2.0, "four")
    condition = guided.encode(["a", "bb"])
    for time in (0.3, 0.5, 0.6):
        assert torch.equal(guided.denoise(X, time, condition), constant.denoise(X, time, condition))
    for time in (0.2, 0.7):
        model.calls.clear()
        assert torch.equal(guided.denoise(X, time, condition), model.denoise(X, time, model.encode(["a", "bb"])))
        assert [len(x) for x, _ in model.calls] == [2, 2]
    with pytest.raises(ValueError, match="must not be negative"):
        Interval(-1.0, 0, 1)
    with pytest.raises(ValueError, match=r"expected start <= stop, got start=0\.6 and stop=0\.3"):
        Interval(2.0, 0.6, 0.3)


def test_a_wrapper_forwards_every_method() -> None:
    """What a base model may define, a wrapper passes on; the rest follows from the weights."""
    derived = {"device", "trainable", "train", "has_reference"}
    public = {name for name in vars(DiffusionModel) if not name.startswith("_")} - derived
    assert public | {"size"} == {name for name in vars(ModelWrapper) if not name.startswith("_")}


def test_a_wrapper_computes_as_its_model() -> None:
    model = Recorder()
    wrapper = ModelWrapper(model)
    condition = wrapper.encode(["a", "bb"])
    assert torch.equal(condition.tensors["length"], model.encode(["a", "bb"]).tensors["length"])
    assert torch.equal(wrapper.denoise(X, 0.5, condition), model.denoise(X, 0.5, condition))
    assert torch.equal(wrapper.decode(X), model.decode(X))
    assert (wrapper.size, wrapper.latent_shape(Size(1, 7)), wrapper.networks()) == (Size(1, 2), (7,), {})
    assert not wrapper.has_reference
