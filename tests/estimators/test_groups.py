"""Groups: n samples of a prompt, compared with each other."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import Tensor

from rlr.analysis.linear import exact_gradients, linear_chain, quadratic
from rlr.data import Prompts
from rlr.estimators import DDPO, GroupLeaveOneOut, GroupStatistics, GroupStd, HalfOrder, RoundStd, Unscaled
from rlr.estimators.groups import Groups, group_metrics
from tests.estimators.problems import deviation
from tests.modules.toy import WORDS, AffineModel, Hard, align, run, weights


def round_of_groups(n: int = 3) -> tuple[list[list[str]], list[Tensor]]:
    """Two batches of two prompts; "b" occurs in both."""
    generator = np.random.default_rng(0)
    prompts = [["a"] * n + ["b"] * n, ["b"] * n + ["c"] * n]
    return prompts, [torch.from_numpy(generator.normal(3.0, 2.0, 2 * n)) for _ in prompts]


def by_hand(prompts: list[list[str]], rewards: list[Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of the others, the mean, and the standard deviation of each sample's group."""
    texts, values = [text for batch in prompts for text in batch], torch.cat(rewards).tolist()
    known = defaultdict(list)
    for text, value in zip(texts, values, strict=True):
        known[text].append(value)
    others = [(sum(known[text]) - value) / (len(known[text]) - 1) for text, value in zip(texts, values, strict=True)]
    return (
        np.array(others),
        np.array([np.mean(known[text]) for text in texts]),
        np.array([np.std(known[text]) for text in texts]),
    )


def test_by_default_the_baseline_is_the_mean_of_the_others_of_the_prompt() -> None:
    prompts, rewards = round_of_groups()
    others, means, stds = by_hand(prompts, rewards)
    values = torch.cat(rewards).numpy()
    for statistics, expected in (
        (GroupStatistics(), values - others),
        (GroupStatistics(leave_one_out=False), values - means),
        (GroupStatistics(GroupStd(1e-4), leave_one_out=False), (values - means) / (stds + 1e-4)),
        (GroupStatistics(RoundStd(1e-4)), (values - others) / (values.std() + 1e-4)),
    ):
        found = statistics.advantages(prompts, rewards)
        assert [len(batch) for batch in found] == [6, 6]
        np.testing.assert_allclose(torch.cat(found).numpy(), expected, rtol=1e-11, atol=1e-13)


def test_the_difficulty_of_a_prompt_does_not_matter() -> None:
    prompts, rewards = round_of_groups()
    shift = {"a": 100.0, "b": -7.0, "c": 0.0}
    moved = [r + torch.tensor([shift[p] for p in ps]) for ps, r in zip(prompts, rewards, strict=True)]
    one, other = (torch.cat(GroupStatistics().advantages(prompts, r)) for r in (rewards, moved))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    unequal = (torch.cat(Unscaled().advantages(prompts, r)) for r in (rewards, moved))
    assert not torch.allclose(*unequal, atol=1.0)


def test_a_prompt_with_one_sample_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"1 of the 2 prompts of the round have one sample; set data.samples_per_prompt"
    ):
        GroupStatistics().advantages([["a", "a", "b"]], [torch.arange(3.0)])


def test_the_baseline_of_half_order_is_the_same() -> None:
    rewards = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    found = GroupLeaveOneOut(3).advantages(rewards)
    (expected,) = GroupStatistics().advantages([["a"] * 3 + ["b"] * 3], [rewards])
    torch.testing.assert_close(found, expected)
    for samples, count in ((1, 6), (4, 6)):
        with pytest.raises(ValueError, match=r"expected at least 2 samples|expected a batch of whole groups of 4"):
            GroupLeaveOneOut(samples).advantages(rewards[:count])


class WithItself(GroupLeaveOneOut):
    """The mean of the whole group, which shrinks the estimate to (n − 1) / n."""

    def advantages(self, rewards: Tensor) -> Tensor:
        return super().advantages(rewards) * (self.samples - 1) / self.samples


def test_it_does_not_bias() -> None:
    chain = linear_chain(4)
    exact = exact_gradients(chain).sum(0)
    assert deviation(HalfOrder(baseline=GroupLeaveOneOut(4)), chain, quadratic, exact, count=50, batch=1024) < 4
    assert deviation(HalfOrder(baseline=WithItself(2)), chain, quadratic, exact, count=50, batch=1024) > 10


def test_what_is_logged() -> None:
    prompts = [["a", "a", "b", "b"]]
    rewards = [torch.tensor([1.0, 3.0, 0.1, 0.1])]
    assert group_metrics(Groups.of_round(prompts, rewards)) == {"group/std": 0.5, "group/zero_std_ratio": 0.5}
    assert group_metrics(Groups.of_round([["a", "a", "b"]], [torch.arange(3.0)])) == {}


# --- in the training step --------------------------------------------------------------------------------------------


def grouped(batch_size: int = 4) -> Prompts:
    """Three prompts, two samples each."""
    return Prompts(list(WORDS[:3]), batch_size=batch_size, samples_per_prompt=2)


def module(**settings: object):  # type: ignore[no-untyped-def]
    estimator = DDPO(1, statistics=GroupStatistics(RoundStd()), advantage_clip=None)
    return align(
        **{"model": AffineModel(dtype="float64", frozen=False), "reward": Hard(), "estimator": estimator, **settings}
    )


def test_a_batch_holds_each_prompt_n_times_with_different_noises() -> None:
    one, rollouts = module(accumulate=2), []
    sample = one._sample
    one._sample = lambda *args: rollouts.append(sample(*args)) or rollouts[-1]
    logged = run(one, grouped(), 1).logged_metrics
    assert [rollout.prompts[::2] for rollout in rollouts] == [rollout.prompts[1::2] for rollout in rollouts]
    starts = torch.cat([rollout.trajectory.noises[-1].flatten(1) for rollout in rollouts])
    assert len(starts.unique(dim=0)) == 8
    groups = Groups.of_round([r.prompts for r in rollouts], [r.rewards for r in rollouts])
    assert logged["group/std"] == pytest.approx(groups.stds.mean().item())
    assert logged["group/zero_std_ratio"] == 0
    assert logged["samples_per_second"] > 0


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_two_processes_equal_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from tests.modules.test_ddp import Leave

    one = module()
    trainer = run(one, grouped(4), 4, precision="64-true")
    ranks = {"strategy": "ddp_fork", "devices": 2, "precision": "64-true"}
    run(module(), grouped(2), 4, callbacks=[Leave(tmp_path)], **ranks)
    assert (weights(one) - weights(module())).norm() > 0.05
    for rank in range(2):
        left = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(left["weights"], weights(one), atol=1e-7, rtol=0)
        assert left["logged"]["group/std"] == pytest.approx(trainer.callback_metrics["group/std"].item(), rel=1e-5)
