"""Callbacks: what is kept of a run, and what is measured and shown of it."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.callbacks.best_checkpoint import BestCheckpoint as BestCheckpoint
    from rlr.callbacks.checkpointing import Checkpointing as Checkpointing
    from rlr.callbacks.checkpointing import SafeCheckpointIO as SafeCheckpointIO
    from rlr.callbacks.ema import EMA as EMA
    from rlr.callbacks.ema import ema_weights as ema_weights
    from rlr.callbacks.evaluation import Evaluation as Evaluation
    from rlr.callbacks.evaluation import Listener as Listener
    from rlr.callbacks.evaluation import Scheduled as Scheduled
    from rlr.callbacks.hacking_alarm import HackingAlarm as HackingAlarm
    from rlr.callbacks.kept_adapter import KeptAdapter as KeptAdapter
    from rlr.callbacks.loggers import keep_files as keep_files
    from rlr.callbacks.loggers import show_image as show_image
    from rlr.callbacks.loggers import show_samples as show_samples
    from rlr.callbacks.loggers import show_table as show_table
    from rlr.callbacks.loggers import show_video as show_video
    from rlr.callbacks.lora_folder import LoRAFolder as LoRAFolder
    from rlr.callbacks.metrics_file import MetricsFile as MetricsFile
    from rlr.callbacks.prediction import PredictionWriter as PredictionWriter
    from rlr.callbacks.preemption import Preemption as Preemption
    from rlr.callbacks.preview import Preview as Preview
    from rlr.callbacks.progress_line import ProgressLine as ProgressLine
    from rlr.callbacks.run_config import RunConfig as RunConfig
    from rlr.callbacks.run_page import RunPage as RunPage
    from rlr.callbacks.unused_average import UnusedAverage as UnusedAverage
    from rlr.callbacks.vbench import VBenchEvaluation as VBenchEvaluation
    from rlr.evaluation import CMMD as CMMD
    from rlr.evaluation import CLIPFeatures as CLIPFeatures
    from rlr.evaluation import Colors as Colors
    from rlr.evaluation import Diversity as Diversity
    from rlr.evaluation import PrecisionRecall as PrecisionRecall
    from rlr.evaluation import SampleGrid as SampleGrid
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
