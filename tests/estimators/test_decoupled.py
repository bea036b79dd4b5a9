"""Rewards that are compared one by one: their units do not matter, and equal sums are not equal."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rlr.estimators import DDPO, DecoupledGroups, GroupStatistics, GroupStd
from rlr.estimators.statistics import clipped_advantages
from rlr.rewards import Combine, FunctionReward
from rlr.rewards.base import Scores
from tests.estimators.test_groups import grouped
from tests.modules.toy import AffineModel, align, run, weights


class Scored:
    """A rollout of which only prompts and scores are known."""

    def __init__(self, prompts: list[str], **parts: Tensor) -> None:
        self.prompts, self.scores = prompts, Scores(_total(parts), parts)

    @property
    def rewards(self) -> Tensor:
        return self.scores.objective


def _total(parts: dict[str, Tensor]) -> Tensor:
    return torch.stack([part.flatten(1).mean(1) if part.ndim > 1 else part for part in parts.values()]).sum(0)


def two_rounds(scale: float = 1.0) -> list[Scored]:
    generator = np.random.default_rng(0)
    draw = lambda: torch.from_numpy(generator.normal(size=6))  # noqa: E731
    return [
        Scored(["a"] * 3 + ["b"] * 3, x=draw(), y=scale * draw()),
        Scored(["b"] * 3 + ["c"] * 3, x=draw(), y=scale * draw()),
    ]


def test_the_advantages_are_those_of_the_formula() -> None:
    rollouts, eps = two_rounds(), 1e-4
    prompts = np.array([p for r in rollouts for p in r.prompts])
    total = np.zeros(12)
    for name, w in (("x", 1.0), ("y", -0.5)):
        values = torch.cat([r.scores.parts[name] for r in rollouts]).numpy()
        for prompt in set(prompts):
            own = values[prompts == prompt]
            total[prompts == prompt] += w * (own - own.mean()) / (own.std() + eps)
    expected = (total - total.mean()) / (total.std() + eps)
    found = DecoupledGroups({"x": 1.0, "y": -0.5}, eps).of_rollouts(rollouts)
    np.testing.assert_allclose(torch.cat(found).numpy(), expected, rtol=1e-11, atol=1e-13)


def test_the_unit_of_a_part_does_not_matter() -> None:
    statistics = DecoupledGroups({"x": 1.0, "y": 1.0}, epsilon=1e-12)
    one, other = (torch.cat(statistics.of_rollouts(two_rounds(scale))) for scale in (1.0, 1000.0))
    torch.testing.assert_close(one, other)
    # the sum that is compared afterwards follows the larger unit
    summed = GroupStatistics(GroupStd(1e-12), leave_one_out=False)
    one, other = (torch.cat(summed.of_rollouts(two_rounds(scale))) for scale in (1.0, 1000.0))
    assert (one - other).abs().max() > 0.5


def test_equal_sums_of_unlike_parts_are_told_apart() -> None:
    """The published example: two rewards of 0 and 1, and groups in which one is rare."""
    easy = torch.tensor([1.0, 1, 1, 0])
    rare = torch.tensor([0.0, 0, 0, 1])
    rollout = Scored(["a"] * 4, x=easy, y=rare)
    (summed,) = GroupStatistics(GroupStd(), leave_one_out=False).of_rollouts([rollout])
    assert summed.abs().max() == 0
    weighted = DecoupledGroups({"x": 1.0, "y": 2.0}).of_rollouts([rollout])[0]
    assert weighted[3] > 1
    assert (weighted[:3] < 0).all()


def test_a_part_of_frames_is_their_mean_and_one_of_no_spread_has_no_effect() -> None:
    frames = torch.tensor([[0.0, 2], [1, 5], [4, 4]])
    one = Scored(["a"] * 3, x=frames, y=torch.full((3,), 7.0))
    other = Scored(["a"] * 3, x=frames.mean(1), y=torch.zeros(3))
    statistics = DecoupledGroups({"x": 1.0, "y": 1.0})
    torch.testing.assert_close(statistics.of_rollouts([one]), statistics.of_rollouts([other]))


def test_what_cannot_be_is_refused() -> None:
    rollouts = two_rounds()
    with pytest.raises(ValueError, match=r"a reward with the part 'z', got the parts \['x', 'y'\]; use Combine"):
        DecoupledGroups({"z": 1.0}).of_rollouts(rollouts)
    with pytest.raises(ValueError, match=r"DecoupledGroups.weights: expected a weight other than 0"):
        DecoupledGroups({"x": 0.0})
    with pytest.raises(ValueError, match="passes their sum alone; use GRPO"):
        DecoupledGroups({"x": 1.0}).advantages([["a", "a"]], [torch.randn(2)])
    with pytest.raises(ValueError, match="DecoupledGroups compares the samples of a prompt"):
        DecoupledGroups({"x": 1.0}).of_rollouts([Scored(["a", "b"], x=torch.randn(2))])


# --- in the training step --------------------------------------------------------------------------------------------


def first(samples: Tensor, prompts: object) -> Tensor:
    return samples.flatten(1)[:, 0]


def last(samples: Tensor, prompts: object) -> Tensor:
    return samples.flatten(1)[:, -1]


def trained(scale: float, statistics: object) -> Tensor:
    """The weights after three updates for two rewards, one of them in another unit."""
    parts = {"x": FunctionReward(first, differentiable=True), "y": FunctionReward(last, differentiable=True)}
    reward = Combine(parts, {"x": 1.0, "y": scale})
    estimator = DDPO(1, statistics=statistics, advantage_clip=None)
    module = align(model=AffineModel(dtype="float64", frozen=False), reward=reward, estimator=estimator)
    run(module, grouped(), 3, precision="64-true")
    return weights(module)


def test_a_training_does_not_depend_on_the_weights_of_the_sum() -> None:
    decoupled = DecoupledGroups({"x": 1.0, "y": 1.0})
    one, other = (trained(scale, decoupled) for scale in (1.0, 1000.0))
    start = weights(align(model=AffineModel(dtype="float64", frozen=False)))
    assert torch.equal(one, other)
    assert (one - start).norm() > 1e-4
    assert not torch.equal(one, trained(1.0, GroupStatistics(GroupStd(), leave_one_out=False)))


def test_clipping_is_of_the_advantages() -> None:
    found = clipped_advantages(DecoupledGroups({"x": 1.0}), two_rounds(), 0.5)
    assert torch.cat(found).abs().max() == 0.5
