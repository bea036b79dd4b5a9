"""Advantages of a round, against the published rule written out with NumPy."""

from collections import deque

import numpy as np
import pytest
import torch

from rlr.estimators import PromptStatistics, RoundStatistics, Statistics, Unscaled, Zero

PROMPTS = ("a cat", "a dog", "a bat")


def rounds(count: int, batches: int = 2, batch: int = 6):  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(0)
    for _ in range(count):
        prompts = [list(generator.choice(PROMPTS, batch, p=(0.6, 0.3, 0.1))) for _ in range(batches)]
        yield prompts, [torch.from_numpy(generator.normal(3.0, 2.0, batch)) for _ in range(batches)]


def test_round_statistics() -> None:
    for prompts, rewards in rounds(2):
        whole = torch.cat(rewards).numpy()
        expected = (whole - whole.mean()) / (whole.std() + 1e-8)
        found = torch.cat(RoundStatistics().advantages(prompts, rewards)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def published(seen: dict, buffer: int, least: int, prompts, rewards) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Per-prompt tracking as it is described: extend the buffers, then compare each prompt with its own."""
    flat, values = np.array([p for batch in prompts for p in batch]), torch.cat(rewards).numpy()
    advantages = np.empty_like(values)
    for prompt in set(flat):
        seen.setdefault(prompt, deque(maxlen=buffer)).extend(values[flat == prompt])
        against = values if len(seen[prompt]) < least else np.array(seen[prompt])
        advantages[flat == prompt] = (values[flat == prompt] - against.mean()) / (against.std() + 1e-6)
    return advantages


@pytest.mark.parametrize(("buffer", "least"), [(16, 16), (8, 3), (3, 3), (2, 2)])
def test_prompt_statistics(buffer: int, least: int) -> None:
    statistics, seen = PromptStatistics(buffer, least), {}
    for prompts, rewards in rounds(5):
        found = torch.cat(statistics.advantages(prompts, rewards)).numpy()
        np.testing.assert_allclose(found, published(seen, buffer, least, prompts, rewards), rtol=1e-9, atol=1e-9)
    assert {len(rewards) for rewards in statistics.seen.values()} <= set(range(buffer + 1))


def test_it_goes_on_where_it_was() -> None:
    one, other = PromptStatistics(4, 2), PromptStatistics(4, 2)
    first, second = rounds(2)
    one.advantages(*first)
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(one.advantages(*second), other.advantages(*second), strict=True))
    assert one.state_dict() == other.state_dict()


def test_a_reward_that_is_not_finite_is_not_remembered() -> None:
    statistics = PromptStatistics(4, 2)
    statistics.advantages([["x", "x", "y"]], [torch.tensor([1.0, torch.nan, torch.inf])])
    assert statistics.state_dict() == {"seen": {"x": [1.0]}}


def test_unscaled_takes_the_round_for_one_batch() -> None:
    rewards = [torch.tensor([1.0, 2.0]), torch.tensor([6.0])]
    found = Unscaled().advantages([["a", "b"], ["c"]], rewards)
    assert [a.tolist() for a in found] == [[1 - 4, 2 - 3.5], [6 - 1.5]]
    assert torch.equal(Unscaled(Zero()).advantages([["a", "b"], ["c"]], rewards)[0], rewards[0])


@pytest.mark.parametrize(("buffer", "least"), [(0, 0), (4, 5), (4, 0), (1, 1), (4, 1)])
def test_a_buffer_too_small_for_its_use_is_refused(buffer: int, least: int) -> None:
    with pytest.raises(ValueError, match="2 <= least <= buffer"):
        PromptStatistics(buffer, least)


ONE = [
    (PromptStatistics(), "data.batch_size to 2"),
    (RoundStatistics(), "data.batch_size to 2"),
    (Unscaled(), "data.batch_size >= 2"),
]


@pytest.mark.parametrize(("statistics", "remedy"), ONE, ids=lambda value: type(value).__name__)
def test_a_round_of_one_sample_is_refused(statistics: Statistics, remedy: str) -> None:
    """Its advantage would be 0 whatever its reward."""
    with pytest.raises(ValueError, match=remedy):
        statistics.advantages([["a cat"]], [torch.tensor([3.0])])
    # two batches of one sample are a round of two
    first, second = statistics.advantages([["a cat"], ["a cat"]], [torch.tensor([3.0]), torch.tensor([5.0])])
    assert first < 0 < second
