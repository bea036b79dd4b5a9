r"""Clipping of the reward's gradient of each sample.

Gradients of a learned reward have heavy tails: of the built-in model's 16 samples of a batch, one often has a hundred times the
norm of the median, and alone decides the direction of the update. Clipping the gradient of the *update* shortens the step and keeps
that direction. Clipping each *sample* bounds its share:

.. math:: \tilde s_i = s_i \min\Bigl(1, \frac{q}{|s_i|}\Bigr), \qquad q \text{ a quantile of the norms of earlier rollouts.}

The estimate is then biased: samples with a steep reward count less.
"""

import torch
from torch import Tensor

from rlr.distributed import gather
from rlr.estimators.base import Estimator
from rlr.estimators.recent import Recent
from rlr.rollout import Rollout


class SampleClip:
    r"""Bounds the norm of the gradient of each sample by a quantile of those of earlier rollouts.

    Each state :math:`x_j` has its own quantile; the first rollout uses its own. Gradients of 0 do not count.

    Args:
        quantile: The quantile in (0, 1]; 0.5 is the median.
        window: The number of rollouts that are kept for each :math:`j`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, quantile: float = 0.5, window: int = 8) -> None:
        if not 0 < quantile <= 1 or window < 1:
            raise ValueError(
                f"SampleClip: expected quantile in (0, 1] and window >= 1, got quantile={quantile}, window={window}"
            )
        self.quantile = quantile
        self.seen = Recent(window)

    def __call__(self, j: int, gradients: Tensor) -> Tensor:
        r"""Returns the clipped gradients.

        Args:
            j: The number of the state :math:`x_j`.
            gradients: The gradients :math:`s_i` with respect to it, with shape :math:`(B, *)`.
        """
        norms = gradients.flatten(1).norm(dim=1)
        everyone = gather(norms.detach()).flatten().double().cpu()
        known = torch.cat(self.seen.of(j) or [everyone])
        # a value that has learned nothing yet has no slope, and says nothing about the norms that are usual
        if len(usual := everyone[everyone.isfinite() & (everyone > 0)]):
            self.seen.add(j, usual)
        factor = (known.quantile(self.quantile).to(norms) / norms.clamp_min(1e-30)).clamp(max=1)
        return gradients * factor.view(-1, *[1] * (gradients.ndim - 1))

    def state_dict(self) -> dict[str, object]:
        """Returns the norms that are kept from one update to the next."""
        return {"seen": self.seen.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self.seen.load_state_dict(state["seen"])  # type: ignore[arg-type]


class ClippingEstimator(Estimator):
    """An estimator that may clip the reward's gradient of each sample.

    Args:
        clip: Bounds the gradients; None does not.
    """

    def __init__(self, clip: SampleClip | None) -> None:
        self.clip = clip

    def state_dict(self) -> dict[str, object]:
        return {"clip": self.clip.state_dict()} if self.clip else {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        if self.clip:
            self.clip.load_state_dict(state["clip"])  # type: ignore[arg-type]


@torch.enable_grad()
def reward_slope(rollout: Rollout) -> Tensor:
    r"""Returns :math:`\partial R / \partial x_0` of the recorded samples, and keeps their rewards."""
    x = rollout.trajectory.states[0].detach().requires_grad_()
    return torch.autograd.grad(rollout.score_recorded(x).sum(), x)[0]
