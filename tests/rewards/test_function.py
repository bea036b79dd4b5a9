"""Functions as rewards: what they may return, and how their gradient is found."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from rlr.rewards import FunctionReward

PIXELS = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
PROMPTS = ["a", "b"]


def mean(images, prompts):
    return images.mean((1, 2, 3))


def array(images, prompts):
    return images.numpy().mean((1, 2, 3))


def numbers(images, prompts):
    return [image.mean().item() for image in images]


def tensors(images, prompts):
    return [image.mean() for image in images]


def in_place(images, prompts):
    return images.mul_(2).mean((1, 2, 3)) / 2


def steps(images, prompts):
    return (images.round() + images.gt(0.5)).mean((1, 2, 3))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, images, prompts):
        return self.drop(self.layer(images.mean((2, 3)))).squeeze(1)


@pytest.mark.parametrize(
    ("function", "differentiable"),
    [(mean, True), (tensors, True), (in_place, True), (array, False), (numbers, False)],
)
def test_the_scores_and_the_gradient_are_those_of_the_function(function, differentiable):
    reward = FunctionReward(function)
    assert reward.differentiable is differentiable
    pixels = PIXELS.clone().requires_grad_()
    scores = reward(pixels, PROMPTS)
    torch.testing.assert_close(scores.detach(), PIXELS.mean((1, 2, 3)))
    assert scores.requires_grad is differentiable
    if differentiable:
        (slope,) = torch.autograd.grad(scores.sum(), pixels)
        torch.testing.assert_close(slope, torch.full_like(slope, 1 / 192))
    assert torch.equal(pixels.detach(), PIXELS)


def test_why_a_function_has_no_gradient_is_stated():
    with pytest.warns(UserWarning, match=r"array has no gradient: .*Can't call numpy\(\) on Tensor that requires grad"):
        FunctionReward(array)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for function in (mean, numbers, steps):
            FunctionReward(function)
        FunctionReward(array, differentiable=False)


def test_a_gradient_that_is_zero_everywhere_is_none():
    assert not FunctionReward(steps).differentiable
    assert not FunctionReward(lambda images, prompts: images.detach().mean((1, 2, 3))).differentiable


def test_stated_facts_need_no_trial():
    def broken(images, prompts):
        raise RuntimeError("not now")

    reward = FunctionReward(broken, differentiable=True, higher_is_better=False, label="Mine")
    assert (reward.differentiable, reward.higher_is_better, reward.label) == (True, False, "Mine")


def test_a_network_is_frozen_and_in_eval_mode():
    torch.manual_seed(0)
    reward = FunctionReward(Layer()).requires_grad_(False)
    assert reward.differentiable
    assert reward.label == "Layer"
    assert torch.equal(reward(PIXELS, PROMPTS), reward(PIXELS, PROMPTS))
    assert not any(weight.requires_grad for weight in reward.train().parameters())


def test_the_trial_leaves_the_generator_and_knows_the_given_shape_and_prompts():
    seen = []

    def look(images, prompts):
        seen.append((tuple(images.shape), prompts))
        return torch.rand(len(images)) + images.flatten(1).mean(1)

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    FunctionReward(look, shape=(4, 3, 8, 8), prompts=["one"])
    assert torch.equal(torch.rand(1), expected)
    assert seen == [((2, 4, 3, 8, 8), ["one", "one"])]


@pytest.mark.parametrize(
    ("value", "stated"),
    [
        (3.0, r"a tensor of shape \(2,\), got float 3.0"),
        (None, r"got None"),
        (np.zeros((2, 2)), r"got ndarray of shape \(2, 2\)"),
        (torch.zeros(3), r"got Tensor of shape \(3,\)"),
        (["high", "low"], r"got list \['high', 'low'\]"),
    ],
)
def test_a_wrong_return_names_the_function_and_what_it_returned(value, stated):
    def wrong(images, prompts):
        return value

    with pytest.raises(
        ValueError, match=rf"the reward tests.rewards.test_function.*wrong: expected one number .*{stated}"
    ):
        FunctionReward(wrong)


def test_an_error_within_the_function_names_it():
    table = {"a cat": 1.0}
    with pytest.raises(ValueError, match=r"the reward .*<lambda>: .*got KeyError: 'a photo of a cat'; correct the"):
        FunctionReward(lambda images, prompts: [table[prompt] for prompt in prompts])
    assert (
        FunctionReward(lambda images, prompts: [table[p] for p in prompts], prompts=["a cat"]).label == "FunctionReward"
    )


def test_a_partial_function_has_the_name_of_its_function():
    assert FunctionReward(partial(mean)).label == "mean"
