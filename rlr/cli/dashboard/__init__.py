"""The dashboard of a project in Weights & Biases: ``python -m rlr.cli.dashboard --help``."""
