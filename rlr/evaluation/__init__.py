"""Evaluation of a model: samples on fixed noises, metrics of them, statistics, tables and pages."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.evaluation.cmmd import CMMD as CMMD
    from rlr.evaluation.diversity import Diversity as Diversity
    from rlr.evaluation.evaluator import Display as Display
    from rlr.evaluation.evaluator import Evaluated as Evaluated
    from rlr.evaluation.evaluator import Evaluator as Evaluator
    from rlr.evaluation.features import CLIPFeatures as CLIPFeatures
    from rlr.evaluation.features import Colors as Colors
    from rlr.evaluation.features import Features as Features
    from rlr.evaluation.geneval import GenEvalTasks as GenEvalTasks
    from rlr.evaluation.grid import SampleGrid as SampleGrid
    from rlr.evaluation.metrics import Metric as Metric
    from rlr.evaluation.metrics import RewardMetric as RewardMetric
    from rlr.evaluation.metrics import parts as parts
    from rlr.evaluation.precision import PrecisionRecall as PrecisionRecall
    from rlr.evaluation.results import Measurement as Measurement
    from rlr.evaluation.results import Results as Results
    from rlr.evaluation.samples import SampleBatch as SampleBatch
    from rlr.evaluation.samples import SampleSet as SampleSet
    from rlr.evaluation.statistics import Comparison as Comparison
    from rlr.evaluation.statistics import Estimate as Estimate
    from rlr.evaluation.statistics import compare as compare
    from rlr.evaluation.statistics import estimate as estimate
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
