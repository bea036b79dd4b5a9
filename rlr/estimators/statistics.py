r"""The means and standard deviations that turn the rewards of a round into advantages.

.. math:: A_i = \frac{R_i - m_i}{s_i}

The samples of all ranks are one round. Dividing by :math:`s_i` makes the learning rate independent of the scale of the reward,
and changes the scale of the gradient from round to round; a mean :math:`m_i` that includes :math:`R_i` itself shrinks the
gradient slightly.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from rlr.distributed import gather, gather_texts, rank
from rlr.estimators.advantages import Baseline, LeaveOneOut
from rlr.estimators.groups import Groups
from rlr.rollout import Rollout


class Statistics(ABC):
    r"""A choice of :math:`m_i` and :math:`s_i`."""

    @abstractmethod
    def advantages(self, prompts: Sequence[Sequence[str]], rewards: Sequence[Tensor]) -> list[Tensor]:
        r"""Returns the :math:`A_i` of a round.

        Args:
            prompts: The prompts of each batch of this rank.
            rewards: The rewards of each batch, with shape :math:`(B)`.

        Returns:
            The advantages of each batch, with shape :math:`(B)`.
        """

    def of_rollouts(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        """Returns the advantages of each rollout of a round; by default those of the rewards alone."""
        return self.advantages([r.prompts for r in rollouts], [r.rewards for r in rollouts])

    def state_dict(self) -> dict[str, object]:
        """Returns the state that is kept from one round to the next."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:  # noqa: B027 - a hook
        """Restores what :meth:`state_dict` returned."""


class Unscaled(Statistics):
    r"""A baseline and no division, :math:`A_i = R_i - b_i`: unbiased where the baseline is.

    Args:
        baseline: The baseline; by default the mean of the other samples of the round.
    """

    def __init__(self, baseline: Baseline | None = None) -> None:
        self.baseline = baseline or LeaveOneOut()

    def advantages(self, prompts: Sequence[Sequence[str]], rewards: Sequence[Tensor]) -> list[Tensor]:
        return list(self.baseline.advantages(torch.cat(list(rewards))).split([len(r) for r in rewards]))

    def state_dict(self) -> dict[str, object]:
        return dict(self.baseline.state_dict())

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.baseline.load_state_dict(state)  # type: ignore[arg-type]


class RoundStatistics(Statistics):
    r"""Mean and standard deviation (with :math:`1 / n`) of the whole round.

    Args:
        epsilon: A constant that is added to the standard deviation.
    """

    def __init__(self, epsilon: float = 1e-8) -> None:
        self.epsilon = epsilon

    def advantages(self, prompts: Sequence[Sequence[str]], rewards: Sequence[Tensor]) -> list[Tensor]:
        mean, std = _moments_of_round(torch.cat([gather(r).flatten() for r in rewards]))
        return [((r - mean) / (std + self.epsilon)).to(r.dtype) for r in rewards]


class PromptStatistics(Statistics):
    r"""Mean and standard deviation of the last rewards of the sample's own prompt, those of this round included.

    A prompt with fewer than ``least`` rewards so far uses the statistics of the whole round. Rewards that are not finite are
    left out.

    References:
        | Training Diffusion Models with Reinforcement Learning (Black et al., 2023), Section 4.2
        | https://arxiv.org/abs/2305.13301

    Args:
        buffer: The number of last rewards that are kept for each prompt.
        least: The number of rewards from which on a prompt's own statistics are used, from 2 to ``buffer``: a reward that
            is compared with itself alone has the advantage 0.
        epsilon: A constant that is added to the standard deviation.
    """

    def __init__(self, buffer: int = 16, least: int = 16, epsilon: float = 1e-6) -> None:
        if not 2 <= least <= buffer:
            raise ValueError(
                f"PromptStatistics needs 2 <= least <= buffer, and got least={least}, buffer={buffer}; with least = 1 the "
                "first reward of a prompt has the advantage 0, and with least > buffer the statistics of a prompt are never "
                "used"
            )
        self.buffer = buffer
        self.least = least
        self.epsilon = epsilon
        self.seen: dict[str, deque[float]] = {}

    def advantages(self, prompts: Sequence[Sequence[str]], rewards: Sequence[Tensor]) -> list[Tensor]:
        everyone = [gather(r) for r in rewards]
        # in the order of the samples of the run, which does not depend on the number of ranks
        for texts, values in zip(map(gather_texts, prompts), everyone, strict=True):
            self._remember([text for part in texts for text in part], values.flatten())
        whole = _moments_of_round(torch.cat([values.flatten() for values in everyone]))
        return [self._compare(p, values[rank()], whole) for p, values in zip(prompts, everyone, strict=True)]

    def _remember(self, prompts: Sequence[str], rewards: Tensor) -> None:
        for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
            if torch.tensor(reward).isfinite():
                self.seen.setdefault(prompt, deque(maxlen=self.buffer)).append(reward)

    def _compare(self, prompts: Sequence[str], rewards: Tensor, whole: tuple[float, float]) -> Tensor:
        means, stds = zip(*(self._moments(str(prompt), whole) for prompt in prompts), strict=True)
        return (rewards - rewards.new_tensor(means)) / (rewards.new_tensor(stds) + self.epsilon)

    def _moments(self, prompt: str, whole: tuple[float, float]) -> tuple[float, float]:
        seen = self.seen.get(prompt, ())
        return moments(torch.tensor(list(seen), dtype=torch.float64)) if len(seen) >= self.least else whole

    def state_dict(self) -> dict[str, object]:
        return {"seen": {prompt: list(rewards) for prompt, rewards in self.seen.items()}}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.seen = {prompt: deque(rewards, maxlen=self.buffer) for prompt, rewards in state["seen"].items()}  # type: ignore[attr-defined]


class Divisor(ABC):
    r"""A choice of the :math:`s_i` that divide the differences of :class:`GroupStatistics`.

    Args:
        epsilon: A constant that is added to the standard deviation.
    """

    def __init__(self, epsilon: float = 1e-4) -> None:
        self.epsilon = epsilon

    @abstractmethod
    def of(self, groups: Groups) -> Tensor:
        r"""Returns the :math:`s_i` of all samples of a round, with shape :math:`(N)`."""


class GroupStd(Divisor):
    """The standard deviation of the sample's group: every group has the same weight, however little its rewards differ."""

    def of(self, groups: Groups) -> Tensor:
        return groups.stds[groups.numbers] + self.epsilon


class RoundStd(Divisor):
    """The standard deviation of the whole round: a factor that all groups share."""

    def of(self, groups: Groups) -> Tensor:
        return (groups.rewards.std(correction=0) + self.epsilon).expand_as(groups.rewards)


class GroupStatistics(Statistics):
    r"""Compares each reward with those of the same prompt in the round, :math:`A_i = (R_i - b_i) / s_i`.

    By default :math:`b_i` is the mean of the *other* samples of the group and nothing is divided, which is unbiased.

    References:
        | Flow-GRPO: Training Flow Matching Models via Online RL (Liu et al., 2025), Eq. 5
        | https://arxiv.org/abs/2505.05470

    Args:
        divisor: The :math:`s_i`; by default 1.
        leave_one_out: Whether :math:`b_i` leaves out :math:`R_i`. With false it is the mean of the whole group, as in
            Flow-GRPO, and a group of :math:`n` samples has :math:`(n - 1) / n` times the advantages.
    """

    def __init__(self, divisor: Divisor | None = None, leave_one_out: bool = True) -> None:
        self.divisor = divisor
        self.leave_one_out = leave_one_out

    def advantages(self, prompts: Sequence[Sequence[str]], rewards: Sequence[Tensor]) -> list[Tensor]:
        groups = Groups.of_round(prompts, rewards)
        groups.check("GroupStatistics")
        n = groups.counts[groups.numbers].double()
        found = groups.deviations * (n / (n - 1) if self.leave_one_out else 1)
        found = found if self.divisor is None else found / self.divisor.of(groups)
        return [own.to(r.dtype) for own, r in zip(groups.own(found), rewards, strict=True)]


def clipped_advantages(statistics: Statistics, rollouts: Sequence[Rollout], limit: float | None) -> list[Tensor]:
    r"""Returns the advantages of each rollout of a round, with shape :math:`(B)`.

    Args:
        statistics: The statistics.
        rollouts: The rollouts.
        limit: The largest absolute value of an advantage; None does not clip.
    """
    found = statistics.of_rollouts(rollouts)
    return found if limit is None else [a.clamp(-limit, limit) for a in found]


def check_clip(limit: float | None, owner: str) -> None:
    """Raises a ``ValueError`` unless the limit of advantages of an estimator of this name is positive or None."""
    if limit is not None and not limit > 0:
        raise ValueError(f"{owner}.advantage_clip: expected a positive number or None, got {limit}")


def _moments_of_round(rewards: Tensor) -> tuple[float, float]:
    if len(rewards) < 2:
        raise ValueError(
            "advantages compare the samples of a round, and the round has one, whose advantage is always 0; set "
            "data.batch_size to 2 or more"
        )
    return moments(rewards)


def moments(rewards: Tensor) -> tuple[float, float]:
    r"""Returns mean and standard deviation (with :math:`1 / n`) of rewards :math:`(n)`."""
    values = rewards.double()
    return values.mean().item(), values.std(correction=0).item()
