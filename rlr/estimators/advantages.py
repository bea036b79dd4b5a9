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

    centered: bool = False
    """Whether the advantages of a batch sum to zero."""

    together: int | None = None
    """The number of samples side by side that are left out together; None where no sample of the batch is averaged."""

    @abstractmethod
    def advantages(self, rewards: Tensor) -> Tensor:
        r"""Returns :math:`A_i = R_i - b_i`, with shape :math:`(B)`, from the rewards :math:`(B)`."""

    def deviations(self, rewards: Tensor) -> Tensor:
        r"""Returns :math:`R_i` minus the mean of the samples that it is compared with, with shape :math:`(B)`; changes no state.

        By default these are all samples of all ranks.
        """
        return rewards - gather(rewards).mean()

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

    Args:
        together: The number :math:`k` of samples side by side that share noise and are left out together: 2 for the pairs of
            :class:`~rlr.estimators.antithetic.Antithetic`.

    Raises:
        ValueError: If :math:`k` is less than 1.
    """

    centered = True

    def __init__(self, together: int = 1) -> None:
        self.together: int = _checked(together, "LeaveOneOut")

    def advantages(self, rewards: Tensor) -> Tensor:
        everyone = gather(rewards)
        n, k = everyone.numel(), self.together
        if n < 2 * k or len(rewards) % k:
            needed = "two samples" if k == 1 else f"at least two blocks of {k} samples"
            raise ValueError(
                f"a leave-one-out baseline needs {needed}, and the batch has {'one' if n == 1 else n}; set data.batch_size >= "
                f"{2 * k}, a multiple of {k}, or use the baseline RunningMean"
            )
        return leave_out(rewards, everyone.mean(), n, k)


class GroupLeaveOneOut(Baseline):
    r"""The mean of the other samples of the same prompt, :math:`b_i = \frac{1}{n - 1} \sum_{j \in G_i, j \neq i} R_j`.

    The samples of a prompt stand side by side in the batch of a rank, :math:`n` at a time.

    Args:
        samples: The number :math:`n \geq 2 k` of samples of a prompt, ``data.samples_per_prompt``, a multiple of :math:`k`.
        together: The number :math:`k` of samples that are left out together, as in :class:`LeaveOneOut`.

    Raises:
        ValueError: If :math:`n` or :math:`k` does not fit.
    """

    centered = True

    def __init__(self, samples: int, together: int = 1) -> None:
        self.together: int = _checked(together, "GroupLeaveOneOut")
        if samples < 2 * together or samples % together:
            raise ValueError(
                f"GroupLeaveOneOut.samples: expected at least {2 * together} samples of a prompt, a multiple of {together}, got "
                f"{samples}"
            )
        self.samples = samples

    def advantages(self, rewards: Tensor) -> Tensor:
        groups = self._groups(rewards)
        return leave_out(groups, groups.mean(1, keepdim=True), self.samples, self.together).flatten()

    def deviations(self, rewards: Tensor) -> Tensor:
        groups = self._groups(rewards)
        return (groups - groups.mean(1, keepdim=True)).flatten()

    def _groups(self, rewards: Tensor) -> Tensor:
        n = self.samples
        if len(rewards) % n:
            raise ValueError(
                f"GroupLeaveOneOut: expected a batch of whole groups of {n} samples, got {len(rewards)} samples; set samples to "
                "data.samples_per_prompt"
            )
        return rewards.view(-1, n)


def leave_out(rewards: Tensor, mean: Tensor, n: int, k: int) -> Tensor:
    r"""Returns the differences of rewards from the mean of the samples of other blocks, with the shape of ``rewards``.

    With :math:`B_i` the sum over the block of sample :math:`i` it is :math:`R_i - \frac{n \bar R - B_i}{n - k}`.

    Args:
        rewards: The :math:`R_i`, whose last dimension holds blocks of :math:`k` samples side by side.
        mean: The mean :math:`\bar R` of all :math:`n` samples.
        n: The number of samples.
        k: The number of samples of a block.
    """
    blocks = rewards.unflatten(-1, (-1, k)).sum(-1).repeat_interleave(k, -1)
    return ((rewards - mean) * n + (blocks - k * rewards)) / (n - k)


def _checked(together: int, owner: str) -> int:
    if together < 1:
        raise ValueError(f"{owner}.together: expected at least 1 sample, got {together}")
    return together


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
