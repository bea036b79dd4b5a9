"""Callbacks: what is kept of a run, and what is measured and shown of it."""

from rlr.callbacks.checkpointing import Checkpointing, SafeCheckpointIO
from rlr.callbacks.ema import EMA, ema_weights
from rlr.callbacks.evaluation import Evaluation, Listener
from rlr.callbacks.hacking_alarm import HackingAlarm
from rlr.callbacks.loggers import show_image, show_table, show_video
from rlr.callbacks.prediction import PredictionWriter
from rlr.callbacks.unused_average import UnusedAverage
from rlr.callbacks.vbench import VBenchEvaluation
from rlr.evaluation import CLIPFeatures, Colors, Diversity, SampleGrid
