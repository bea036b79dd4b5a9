"""Scores that a vision-language model says."""
