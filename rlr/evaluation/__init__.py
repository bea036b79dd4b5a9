"""Evaluation of a model: samples on fixed noises, metrics of them, statistics, tables and pages."""

from rlr.evaluation.diversity import Diversity, diversity
from rlr.evaluation.evaluator import Display, Evaluator
from rlr.evaluation.features import CLIPFeatures, Colors, Features
from rlr.evaluation.grid import SampleGrid
from rlr.evaluation.metrics import Metric, RewardMetric, parts
from rlr.evaluation.results import Measurement, Results
from rlr.evaluation.samples import SampleBatch, SampleSet
from rlr.evaluation.statistics import Comparison, Estimate, compare, estimate
