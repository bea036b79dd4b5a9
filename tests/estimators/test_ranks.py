"""Ranks within groups depend on the order of rewards alone."""

import pytest
import torch

from rlr.estimators import GroupRanks
from tests.estimators.test_groups import round_of_groups


def test_ranks_have_known_answers() -> None:
    prompts = [["a"] * 3 + ["b"] * 2, ["b"] * 2]
    rewards = [torch.tensor([5.0, -1.0, 700.0, 1.0, 1.0]), torch.tensor([1.0, 2.0])]
    # b: three equal ones that one beats, so each has −1/3
    expected = torch.tensor([0, -1, 1, -1 / 3, -1 / 3, -1 / 3, 1])
    torch.testing.assert_close(torch.cat(GroupRanks().advantages(prompts, rewards)), expected)


def test_an_increasing_function_of_the_reward_changes_nothing() -> None:
    prompts, rewards = round_of_groups(4)
    one = torch.cat(GroupRanks().advantages(prompts, rewards))
    for function in (torch.exp, lambda r: 1e6 * r - 3, torch.atan):
        assert torch.equal(one, torch.cat(GroupRanks().advantages(prompts, [function(r) for r in rewards])))
    # and a decreasing one turns them round
    assert torch.equal(-one, torch.cat(GroupRanks().advantages(prompts, [-r for r in rewards])))


def test_different_rewards_have_equally_spaced_advantages() -> None:
    prompts, rewards = [["a"] * 5], [torch.randn(5, generator=torch.Generator().manual_seed(0))]
    (found,) = GroupRanks().advantages(prompts, rewards)
    torch.testing.assert_close(found.sort().values, torch.linspace(-1, 1, 5))
    assert torch.equal(found.argsort(), rewards[0].argsort())
    assert found.sum().item() == pytest.approx(0, abs=1e-6)


def test_a_prompt_with_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="GroupRanks compares the samples of a prompt, and 1 of the 2 prompts"):
        GroupRanks().advantages([["a", "a", "b"]], [torch.randn(3)])
