"""How far a run has come."""

from dataclasses import dataclass


@dataclass
class Progress:
    """How far a run has come.

    Args:
        batches: Batches seen by each rank.
        samples: Samples seen by all ranks together.
        updates: Updates made; skipped ones do not count.
        reward_calls: Samples scored in training by all ranks together.
        running: The exponential mean of the reward, in the reward's own sign.
    """

    batches: int = 0
    samples: int = 0
    updates: int = 0
    reward_calls: int = 0
    running: float | None = None

    def add_reward(self, reward: float) -> None:
        """Adds a batch's mean reward, which is finite, to the exponential mean."""
        self.running = reward if self.running is None else 0.9 * self.running + 0.1 * reward


def passed(before: int, now: int, every: int | None) -> bool:
    """Whether a count that rose from ``before`` to ``now`` reached or passed a multiple of ``every``; never of 0 or None.

    The one rule for "every n updates". A batch may bring several updates, and several batches one, so the count may skip the
    multiple itself and may stand still.
    """
    return every is not None and every > 0 and now // every > before // every
