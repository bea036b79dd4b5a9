"""Callbacks: what is kept of a run, and what is measured and shown of it."""

from rlr.callbacks.checkpointing import Checkpointing, SafeCheckpointIO
from rlr.callbacks.ema import EMA, averaged
from rlr.callbacks.hacking_alarm import HackingAlarm
from rlr.callbacks.media import show_picture, show_table, show_video
from rlr.callbacks.prediction import PredictionWriter
from rlr.callbacks.reward_evaluation import Listener, RewardEvaluation
from rlr.callbacks.sample_grid import SampleGrid
from rlr.callbacks.unused_average import UnusedAverage
from rlr.callbacks.vbench import VBenchEvaluation
from rlr.evaluation import CLIPFeatures, Colours, Diversity
