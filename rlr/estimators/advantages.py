r"""Baselines: values that are subtracted from a reward before it multiplies a likelihood ratio.

.. math:: A_i = R_i - b_i

leaves the estimate unbiased as long as :math:`b_i` does not depend on sample :math:`i`. Under data parallelism the
samples of all ranks are one batch; ranks exchange only the rewards.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from rlr.distributed import gather


class Baseline(ABC):
    r"""A choice of :math:`b_i`."""

    @abstractmethod
    def advantages(self, rewards: Tensor) -> Tensor:
        r"""Returns :math:`A_i = R_i - b_i`, with shape :math:`(B)`, from the rewards :math:`(B)`."""

    def state_dict(self) -> dict[str, float]:
        """Returns the state that is kept from one update to the next."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:  # noqa: B027 - a hook
        """Restores what :meth:`state_dict` returned."""


class Zero(Baseline):
    r"""No baseline, :math:`b_i = 0`: unbiased, with a large variance."""

    def advantages(self, rewards: Tensor) -> Tensor:
        return rewards


class LeaveOneOut(Baseline):
    r"""The mean of the other samples, :math:`b_i = \frac{1}{n - 1} \sum_{j \neq i} R_j`.

    Unlike the batch mean, it does not shrink the estimate.

    References:
        | Buy 4 REINFORCE Samples, Get a Baseline for Free! (Kool et al., 2019)
        | https://openreview.net/forum?id=r1lgTGL5DE
    """

    def advantages(self, rewards: Tensor) -> Tensor:
        everyone = gather(rewards)
        n = everyone.numel()
        if n < 2:
            raise ValueError(
                "a leave-one-out baseline needs two samples, and the batch has one; "
                "set data.batch_size >= 2 or use the baseline RunningMean"
            )
        return (rewards - everyone.mean()) * n / (n - 1)


class GroupLeaveOneOut(Baseline):
    r"""The mean of the other samples of the same prompt, :math:`b_i = \frac{1}{n - 1} \sum_{j \in G_i, j \neq i} R_j`.

    The samples of a prompt stand side by side in the batch of a rank, :math:`n` at a time.

    Args:
        samples: The number :math:`n \geq 2` of samples of a prompt, ``data.samples_per_prompt``.

    Raises:
        ValueError: If :math:`n` is less than 2.
    """

    def __init__(self, samples: int) -> None:
        if samples < 2:
            raise ValueError(f"GroupLeaveOneOut.samples: expected at least 2 samples of a prompt, got {samples}")
        self.samples = samples

    def advantages(self, rewards: Tensor) -> Tensor:
        n = self.samples
        if len(rewards) % n:
            raise ValueError(
                f"GroupLeaveOneOut: expected a batch of whole groups of {n} samples, got {len(rewards)} samples; set samples to "
                "data.samples_per_prompt"
            )
        groups = rewards.view(-1, n)
        return ((groups - groups.mean(1, keepdim=True)) * n / (n - 1)).flatten()


class RunningMean(Baseline):
    r"""The exponential mean of the rewards of *earlier* updates; it works for a batch of one sample.

    :math:`b \leftarrow \lambda b + (1 - \lambda) \bar R` after :math:`b` has been used, with the bias correction
    of Adam. The first update has :math:`b = 0`. Rewards that are not finite are left out, because the mean would stay not finite.

    Args:
        decay: The decay :math:`\lambda \in [0, 1)`.
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"RunningMean.decay: expected a number in [0, 1), got {decay}")
        self.decay = decay
        self.total = 0.0
        self.weight = 0.0

    def advantages(self, rewards: Tensor) -> Tensor:
        advantages = rewards - (self.total / self.weight if self.weight else 0.0)
        everyone = gather(rewards)
        finite = everyone[everyone.isfinite()]
        if len(finite):
            self.total = self.decay * self.total + (1 - self.decay) * finite.mean().item()
            self.weight = self.decay * self.weight + (1 - self.decay)
        return advantages

    def state_dict(self) -> dict[str, float]:
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.total, self.weight = state["total"], state["weight"]
