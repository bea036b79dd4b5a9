"""RLR: align image and video diffusion models with rewards."""

__version__ = "0.1.0"
