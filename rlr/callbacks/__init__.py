"""Callbacks: what is kept of a run, and what is measured and shown of it."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.callbacks.checkpointing import Checkpointing as Checkpointing
    from rlr.callbacks.checkpointing import SafeCheckpointIO as SafeCheckpointIO
    from rlr.callbacks.ema import EMA as EMA
    from rlr.callbacks.ema import averaged as averaged
    from rlr.callbacks.hacking_alarm import HackingAlarm as HackingAlarm
    from rlr.callbacks.media import show_picture as show_picture
    from rlr.callbacks.media import show_table as show_table
    from rlr.callbacks.media import show_video as show_video
    from rlr.callbacks.prediction import PredictionWriter as PredictionWriter
    from rlr.callbacks.reward_evaluation import Listener as Listener
    from rlr.callbacks.reward_evaluation import RewardEvaluation as RewardEvaluation
    from rlr.callbacks.sample_grid import SampleGrid as SampleGrid
    from rlr.callbacks.unused_average import UnusedAverage as UnusedAverage
    from rlr.callbacks.vbench import VBenchEvaluation as VBenchEvaluation
    from rlr.evaluation import CLIPFeatures as CLIPFeatures
    from rlr.evaluation import Colours as Colours
    from rlr.evaluation import Diversity as Diversity
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
