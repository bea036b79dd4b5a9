"""The relative reward is the difference of two scores, and cancels what does not depend on the prompt."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rlr.rewards import AsIs, Brightness, Combine, Relative, Reward


class Wordy(Reward):
    """Counts how often a prompt says "red", times the red of the image, plus the brightness whatever the prompt."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        said = samples.new_tensor([prompt.count("red") for prompt in prompts])
        return said * samples[:, 0].mean((1, 2)) + 10 * samples.mean((1, 2, 3))


SAMPLES = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
PROMPTS = ["a dot", "a red dot", "two dots"]


def test_it_is_the_difference_of_the_scores_under_both_prompts() -> None:
    reward = Relative(Wordy(), ["red and red"], ["red"])
    red = SAMPLES[:, 0].mean((1, 2))
    torch.testing.assert_close(reward(SAMPLES, PROMPTS), red)
    # the share that both prompts have is not doubled by a positive excess alone
    more = Relative(Wordy(), ["red and red"], ["red"], excess=0.5)
    torch.testing.assert_close(
        more(SAMPLES, PROMPTS), red + 0.5 * Wordy()(SAMPLES, [f"red and red. {p}" for p in PROMPTS])
    )


def test_what_does_not_depend_on_the_prompt_cancels() -> None:
    samples = SAMPLES.clone().requires_grad_()
    Relative(Brightness(), ["a"], ["b"])(samples, PROMPTS).sum().backward()
    assert samples.grad.abs().max() < 1e-7
    Relative(Brightness(), ["a"], ["b"], excess=1.0)(samples, PROMPTS).sum().backward()
    assert samples.grad.abs().min() > 1e-3


def test_words_are_joined_by_the_template_and_a_prompt_keeps_its_own() -> None:
    reward = Relative(Wordy(), ["", "x"], ["y"], template="{prompt} {words}")
    prompts = [str(number) for number in range(50)]
    texts = reward._texts(prompts, reward.positive)
    assert texts == reward._texts(prompts, reward.positive)
    assert set(texts) <= {*prompts, *(f"{prompt} x" for prompt in prompts)}
    assert 10 < sum(text.endswith("x") for text in texts) < 40


def test_a_combination_inside_learns_from_its_parts() -> None:
    inner = Combine({"wordy": Wordy()}, {"wordy": 1.0}, AsIs())
    scores = Relative(inner, ["red"], ["blue"]).score(SAMPLES, PROMPTS)
    Relative(inner, ["red"], ["blue"]).update_statistics(scores)
    torch.testing.assert_close(scores.parts["wordy"], Wordy()(SAMPLES, [f"red. {p}" for p in PROMPTS]))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="positive and negative words"):
        Relative(Brightness(), [])
    with pytest.raises(ValueError, match="in it, got"):
        Relative(Brightness(), template="{prompt}")
