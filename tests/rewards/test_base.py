"""The contract that the base class enforces: scores as a tensor, isolation from training, devices and precisions."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlr.rewards import Brightness, Combine, Reward, RunningZScore
from rlr.rewards.base import as_scores
from rlr.rewards.networks.preprocessing import to_bytes

PROMPTS = ["a", "b"]


class Returning(Reward):
    """Returns what it was made with."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, samples, prompts):
        return self.value


class Linear(Reward):
    """One layer that autocast would run in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 1).requires_grad_(False)

    def forward(self, samples: Tensor, prompts) -> Tensor:
        return self.layer(samples.flatten(1)).squeeze(1).square()


@pytest.mark.parametrize(
    "value",
    [
        [0.5, 2],
        (0.5, 2.0),
        [np.float32(0.5), np.int64(2)],
        [torch.tensor(0.5), torch.tensor([2.0])],
        np.array([0.5, 2.0]),
        np.array([0.5, 2.0], np.float16),
        torch.tensor([0.5, 2.0], dtype=torch.bfloat16),
        torch.tensor([0.5, 2.0]),
    ],
)
def test_numbers_in_any_sequence_are_scores(value):
    scores = Returning(value)(torch.rand(2, 3, 2, 2), PROMPTS)
    assert torch.equal(scores, torch.tensor([0.5, 2.0]))


@pytest.mark.parametrize("value", [[1, 0], [True, False], torch.tensor([1, 0]), np.array([True, False])])
def test_integers_and_booleans_are_scores(value):
    assert torch.equal(as_scores(value, PROMPTS, "Mine"), torch.tensor([1.0, 0.0]))


class Raising(Reward):
    """Raises what it was made with."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, samples, prompts):
        raise self.error


KINDS = (KeyError, IndexError, TypeError, AttributeError, NameError, RuntimeError, AssertionError, ZeroDivisionError)


@pytest.mark.parametrize("error", [*(kind("boom") for kind in KINDS), NotImplementedError()], ids=repr)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: Combine({"a": x}, {"a": 1.0})], ids=["alone", "combined"])
def test_an_error_in_the_code_of_a_reward_names_the_reward_and_the_line(error, wrap):
    stated = (
        rf"^the reward Raising: expected scores, got {type(error).__name__}: .*\(.*test_base.py, line \d+\); correct"
    )
    with pytest.raises(ValueError, match=stated) as caught:
        wrap(Raising(error))(torch.rand(2, 3, 2, 2), PROMPTS)
    assert caught.value.__cause__ is error


def test_a_sentence_of_a_reward_gets_its_name():
    with pytest.raises(ValueError, match=r"^the reward Raising: no such color$"):
        Raising(ValueError("no such color"))(torch.rand(2, 3, 2, 2), PROMPTS)


@pytest.mark.parametrize(
    "error", [FileNotFoundError("x"), ConnectionError("x"), FloatingPointError("x"), KeyboardInterrupt()]
)
def test_errors_that_are_none_of_the_code_stay_as_they_are(error):
    with pytest.raises(type(error)) as caught:
        Raising(error)(torch.rand(2, 3, 2, 2), PROMPTS)
    assert caught.value is error


def test_float64_stays_and_a_list_of_tensors_keeps_its_gradient():
    assert as_scores(torch.zeros(2, dtype=torch.float64), PROMPTS, "Mine").dtype == torch.float64
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    as_scores([x[0] * 2, x[1] * 5], PROMPTS, "Mine").sum().backward()
    assert x.grad.tolist() == [2, 5]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "got None"),
        (5, "got int 5"),
        ("ab", "got str 'ab'"),
        ([1.0], r"got list \[1.0\]"),
        ([], r"got list \[\]"),
        ([1.0, None], "got list"),
        (["1", "2"], "got list"),
        ([[1.0], [2.0]], "got list"),
        ([10**400, 1], "got list"),
        ({"a": 1}, "got dict"),
        (np.zeros((2, 1)), r"got ndarray of shape \(2, 1\) and type float64"),
        (torch.zeros(2, 1), r"got Tensor of shape \(2, 1\) and type torch.float32"),
        (torch.zeros(()), r"got Tensor of shape \(\)"),
        (torch.zeros(3), r"got Tensor of shape \(3,\)"),
        (torch.zeros(2, dtype=torch.complex64), r"got Tensor of shape \(2,\) and type torch.complex64"),
        ([torch.zeros(3), torch.zeros(3)], "got list"),
    ],
)
def test_anything_else_is_one_sentence(value, found):
    with pytest.raises(
        ValueError, match=rf"the reward Returning: expected one number a sample.* shape \(2,\), {found}"
    ):
        Returning(value)(torch.rand(2, 3, 2, 2), PROMPTS)


def test_a_reward_never_sees_a_sample_that_is_not_finite():
    class Raising(Brightness):
        def forward(self, samples, prompts):
            assert samples.isfinite().all()
            return super().forward(samples, prompts)

    samples = torch.rand(3, 3, 2, 2)
    samples[1] = torch.inf
    assert Raising()(samples, ["a", "b", "c"]).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_no_byte_stands_for_a_pixel_that_is_not_finite(value):
    with pytest.raises(ValueError, match=r"expected finite pixels to round to bytes"):
        to_bytes(torch.tensor([0.5, value]))


def test_the_backward_of_a_reward_leaves_autocast_and_that_of_the_others_does_not():
    reward, other = Linear(), nn.Linear(12, 12)
    x = torch.rand(2, 12, requires_grad=True)
    torch.autograd.grad(reward(x.view(2, 3, 2, 2), PROMPTS).sum(), x)
    seen = []
    reward.layer.register_full_backward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    other.register_full_backward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", torch.bfloat16):
        reward(other(x).view(2, 3, 2, 2), PROMPTS).sum().backward()
    assert seen == [False, True]


def test_a_graph_that_is_retained_gives_the_same_gradient_again():
    reward, x = Linear(), torch.rand(2, 3, 2, 2, requires_grad=True)
    scores = reward(x, PROMPTS)
    first, second = (torch.autograd.grad(scores.sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert first.abs().max() > 0


def test_casts_below_float32_are_ignored_and_moves_are_not():
    reward = Linear()
    reward.scaling = RunningZScore()
    holder = nn.ModuleList([reward, nn.Linear(2, 2)]).to(torch.bfloat16)
    assert {weight.dtype for weight in reward.parameters()} == {torch.float32}
    assert {buffer.dtype for buffer in reward.buffers()} == {torch.float64}
    assert holder[1].weight.dtype == torch.bfloat16
    for cast in (reward.half, reward.bfloat16, lambda: reward.type(torch.float16)):
        cast()
        assert reward.layer.weight.dtype == torch.float32
    assert reward.double().layer.weight.dtype == torch.float64
    weight = reward.float().to("meta", torch.float16).layer.weight
    assert (weight.dtype, weight.device.type) == (torch.float32, "meta")
