"""Integers from integers: every random number of a run follows from its seed."""

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """What a seed is for. No two uses share a stream, so that no two share random numbers."""

    SAMPLE = 1
    """The noise of a training sample, by its number in the run."""
    ROLLOUT = 2
    """What an estimator draws for a rollout, by the number of the rollout's first sample."""
    EVALUATION = 3
    """The noise of a sample that is evaluated, by the number of its prompt and its own among those of the prompt."""
    FRAMES = 4
    """The frames of videos that a reward sees, by the number of the rollout's first sample."""
    DEPTH = 6
    """The number of steps that are backpropagated through."""
    SEGMENT = 7
    """The segments or single steps of likelihood-ratio terms."""
    DIRECTION = 8
    """A zeroth-order direction, by its number and step."""
    WEIGHT = 9
    """The entries of a direction that belong to a weight, by the number of the weight."""
    RENOISE = 10
    """Fresh noise for a clean sample, by the number of the noise and of the sample."""
    ORDER = 11
    """The order of a round's samples, by epoch."""
    MINIBATCH = 12
    """What an estimator draws for an update of a round, by epoch and update."""
    PASS = 13
    """The order of prompts, by pass."""
    ITERATION = 14
    """The frames of videos, by iteration of an optimization of latents."""
    EXPERIMENT = 15
    """The draws of an experiment, by number."""
    REFERENCE = 16
    """The draws of the reference that an experiment compares with, by number."""
    WINDOW = 17
    """The steps that have noise, by round."""
    LEVEL = 18
    """The levels that clean samples are noised to."""


def spawn(seed: int, stream: Stream, *index: int) -> int:
    r"""Returns a seed that is independent of ``seed`` and of that of every other stream and index, in :math:`[0, 2^{63})`.

    Args:
        seed: The parent seed, a non-negative integer.
        stream: What the seed is for.
        index: Integers in :math:`[0, 2^{64})`, such as the numbers of prompt and sample.

    Raises:
        ValueError: If an index is out of range.
    """
    if any(not 0 <= i < 2**64 for i in index):
        raise ValueError(f"spawn: expected indices in [0, 2**64), got {index} for stream {Stream(stream).name}")
    # two words an index, however small: NumPy would write (1, 0) and (2**32,) alike
    words = (word for i in index for word in divmod(i, 2**32))
    # a spawn key, unlike further words of entropy, distinguishes (7,) from (7, 0)
    sequence = np.random.SeedSequence(seed, spawn_key=(int(stream), *words))
    low, high = sequence.generate_state(2, np.uint32).tolist()
    return (high << 32 | low) >> 1
