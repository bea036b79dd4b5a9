"""Measuring a model: samples on fixed noises, their scores, how far these can be trusted, and how they are shown."""

from rlr.evaluation.diversity import Diversity, diversity
from rlr.evaluation.features import CLIPFeatures, Colours, Features
from rlr.evaluation.measure import measure, parts
from rlr.evaluation.results import Measurement, Results
from rlr.evaluation.sampling import paint, render
from rlr.evaluation.statistics import Comparison, Estimate, compare, estimate
