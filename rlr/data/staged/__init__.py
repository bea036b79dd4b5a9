"""Prompts in stages."""
