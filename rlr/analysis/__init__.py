"""Bias, variance, cost and memory of estimators on a model, a reward and a chain."""
