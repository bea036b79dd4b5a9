"""What the seeds of a run are for: a key of each use, so that no two have the same random numbers."""

SAMPLE = 1
"""The noise of a training sample, by its number in the run."""
BATCH = 2
"""What a roll-out draws of its own, by the number of its first sample."""
EVALUATION = 3
"""The noise of a sample that is evaluated, by its prompt's number."""
FRAMES = 4
"""The frames of clips that a reward sees."""
ROUND = 5
"""The order of a round's samples."""
