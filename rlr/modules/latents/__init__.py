"""Optimization of latents instead of weights."""
