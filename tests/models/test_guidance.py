from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from rlr.models import Condition, DiffusionModel, Guidance
from rlr.models.prediction import noise, velocity
from rlr.schedules import RectifiedFlow


class Recorder(DiffusionModel):
    """Estimates a prompt's length times the latent, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.schedule = (2,), RectifiedFlow()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls: list[tuple[Tensor, Tensor]] = []

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
    assert guided.shape == model.shape
    assert guided.schedule is model.schedule
    assert list(guided.trainable.values()) == [model.weight]
    assert torch.equal(guided.decode(X), X.sigmoid())
    assert not guided.train().training
    assert not model.training


def test_negative_scale_raises() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        Guidance(Recorder(), -1.0)


def test_a_model_without_memory_of_its_base_says_so() -> None:
    with pytest.raises(ValueError, match="load the base model a second time"):
        Guidance(Recorder()).reference()
    with pytest.raises(ValueError, match="no format of its own"):
        Guidance(Recorder()).export("folder")
