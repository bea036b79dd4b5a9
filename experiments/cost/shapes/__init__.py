"""Base models of given sizes with random weights; a new one is a file here and an entry."""

from collections.abc import Mapping

from experiments.cost.shapes.base import Shape
from experiments.cost.shapes.stable_diffusion import SD14, TINY
from experiments.cost.shapes.stable_diffusion3 import SD35
from experiments.cost.shapes.wan import WAN

SHAPES: Mapping[str, Shape] = {"tiny": TINY, "sd14": SD14, "sd35": SD35, "wan1.3b": WAN}
"""The shapes by the name that ``make bench SHAPE=…`` takes."""
