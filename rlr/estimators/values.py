r"""Value functions: the :math:`c` of a control variate, a differentiable guess of the reward of a sample :math:`x_0`.

A control variate may use any function :math:`c` whose parameters were fixed before the noise of this rollout was drawn.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from rlr.distributed import gather
from rlr.objective import Objective
from rlr.rewards.base import Reward
from rlr.rollout import Rollout
from rlr.seeding import Stream


class Value(ABC):
    r"""A function :math:`c(x_0)` of final latents and their prompts, differentiable in the latents."""

    @abstractmethod
    def of(self, rollout: Rollout) -> Callable[[Tensor], Tensor]:
        r"""Returns the function of latents :math:`x_0`, with shape :math:`(B, *)`, of the rollout's prompts; values :math:`(B)`."""

    @property
    def needs_gradient(self) -> bool:
        """Whether it needs a gradient of the reward that is aligned to."""
        return False

    def learn(self, rollout: Rollout) -> None:  # noqa: B027 - a hook
        """Learns from the samples and rewards of a rollout that has been used, for later rollouts."""

    def state_dict(self) -> dict[str, object]:
        """Returns the state that is kept from one update to the next."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:  # noqa: B027 - a hook
        """Restores what :meth:`state_dict` returned."""


def scorer(reward: Reward, rollout: Rollout) -> Callable[[Tensor], Tensor]:
    r"""Returns another reward than the one that is aligned to, as a function of latents :math:`x_0` of the rollout's prompts.

    Its scores do not count as reward calls.
    """
    objective = Objective(rollout.chain.model, reward.to(rollout.trajectory.states.device))
    of_frames = objective.of_frames(rollout.spawn(Stream.FRAMES))
    return lambda x: of_frames(x, rollout.prompts).objective


def check_gradient(reward: Reward, argument: str) -> None:
    """Raises a ``ValueError`` that names the argument if the reward has no gradient in the pixels."""
    if not reward.differentiable:
        raise ValueError(
            f"{argument}: expected a differentiable reward, got {type(reward).__name__}, which has no gradient in the pixels; set "
            "a reward such as PickScore"
        )


class OwnReward(Value):
    """The reward that is aligned to, which must be differentiable."""

    @property
    def needs_gradient(self) -> bool:
        return True

    def of(self, rollout: Rollout) -> Callable[[Tensor], Tensor]:
        return rollout.score


class StandIn(Value):
    r"""Another, differentiable reward :math:`\tilde R`, such as one that correlates with a reward without gradient.

    .. math:: c(x_0) = \alpha \tilde R(x_0) + \beta

    with :math:`\alpha, \beta` of a least-squares fit of the reward in earlier rollouts, 0 before the first. Its scores do not
    count as reward calls.

    Args:
        reward: The other reward.
        window: The number of rollouts that are kept for the fit.
    """

    def __init__(self, reward: Reward, window: int = 32) -> None:
        check_gradient(reward, "StandIn.reward")
        self.reward = reward
        self.seen: deque[Tensor] = deque(maxlen=window)

    def of(self, rollout: Rollout) -> Callable[[Tensor], Tensor]:
        score, (alpha, beta) = scorer(self.reward, rollout), self._fit()
        return lambda x: alpha * score(x) + beta

    @torch.no_grad()
    def learn(self, rollout: Rollout) -> None:
        scores = scorer(self.reward, rollout)(rollout.trajectory.states[0])
        pairs = gather(torch.stack([scores, rollout.rewards.to(scores)], 1)).flatten(0, 1)
        self.seen.append(pairs[pairs.isfinite().all(1)].double().cpu())

    def _fit(self) -> tuple[float, float]:
        if not self.seen:
            return 0.0, 0.0
        scores, rewards = torch.cat(list(self.seen)).T
        spread = scores - scores.mean()
        alpha = ((spread @ rewards) / (spread @ spread).clamp_min(1e-12)).item()
        return alpha, (rewards.mean() - alpha * scores.mean()).item()

    def state_dict(self) -> dict[str, object]:
        return {"seen": list(self.seen)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.seen.clear()
        self.seen.extend(state["seen"])  # type: ignore[arg-type]
