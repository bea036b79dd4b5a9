"""Prompts in stages: a prompt for each group of steps of a chain."""
