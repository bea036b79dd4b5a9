"""The experiments that the command line knows."""

from experiments.base import Experiment

EXPERIMENTS: tuple[type[Experiment], ...] = ()
