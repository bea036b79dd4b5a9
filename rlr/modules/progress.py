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
        failures: Updates skipped in a row.
        running: The exponential mean of the reward, as it gives it.
    """

    batches: int = 0
    samples: int = 0
    updates: int = 0
    reward_calls: int = 0
    failures: int = 0
    running: float | None = None
