"""Callbacks: what is kept of a run."""

from rlr.callbacks.checkpointing import Checkpointing, SafeCheckpointIO
from rlr.callbacks.prediction import PredictionWriter
