"""Integers from integers: every random number of a run follows from its seed."""

import numpy as np


def spawn(seed: int, *key: int) -> int:
    """Returns a seed that is independent of ``seed`` and of every other key's, in [0, 2⁶³).

    Args:
        seed: The parent seed, a non-negative integer.
        key: Non-negative integers that say what the seed is for, such as step and sample.
    """
    low, high = np.random.SeedSequence([seed, *key]).generate_state(2, np.uint32).tolist()
    return (high << 32 | low) >> 1
