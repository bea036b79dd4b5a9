r"""Value functions: the :math:`c` of a control variate, a differentiable guess of the reward of a sample :math:`x_0`.

A control variate may use any function :math:`c` whose parameters were fixed before the noise of this rollout was drawn.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

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

    def state_dict(self) -> dict[str, object]:
        """Returns the state that is kept from one update to the next."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:  # noqa: B027 - a hook
        """Restores what :meth:`state_dict` returned."""


class OwnReward(Value):
    """The reward that is aligned to, which must be differentiable."""

    @property
    def needs_gradient(self) -> bool:
        return True

    def of(self, rollout: Rollout) -> Callable[[Tensor], Tensor]:
        return rollout.score


class StandIn(Value):
    """Another, differentiable reward, such as one that correlates with a reward without gradient.

    Its scores do not count as reward calls.

    Args:
        reward: The other reward.
    """

    def __init__(self, reward: Reward) -> None:
        if not reward.differentiable:
            raise ValueError(
                f"StandIn.reward: expected a differentiable reward, got {type(reward).__name__}, which has no gradient in "
                "the pixels; set a reward such as PickScore"
            )
        self.reward = reward

    def of(self, rollout: Rollout) -> Callable[[Tensor], Tensor]:
        reward = self.reward.to(rollout.trajectory.states.device)
        objective = Objective(rollout.chain.model, reward).of_frames(rollout.spawn(Stream.FRAMES))
        return lambda x: objective(x, rollout.prompts).objective
