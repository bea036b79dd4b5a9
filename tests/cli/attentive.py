"""A stand-in that must not be asked for samples that it has learned from."""

from collections.abc import Callable

from torch import Tensor

from rlr.estimators import StandIn
from rlr.rollout import Rollout
from tests.modules.toy import Level


class Attentive(StandIn):
    """Raises where it is asked for a value of a rollout that it has learned from."""

    def __init__(self) -> None:
        super().__init__(Level())
        self.learned: set[bytes] = set()

    def of(self, rollout: Rollout) -> Callable[[Tensor], Tensor]:
        assert self.samples(rollout) not in self.learned
        return super().of(rollout)

    def learn(self, rollout: Rollout) -> None:
        self.learned.add(self.samples(rollout))
        super().learn(rollout)

    def samples(self, rollout: Rollout) -> bytes:
        """The final latents of a rollout."""
        return rollout.trajectory.states[0].numpy().tobytes()
