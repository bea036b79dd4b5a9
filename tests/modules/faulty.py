"""Parts with a bug in their code."""

from collections.abc import Sequence

from torch import Tensor

from tests.modules.toy import AffineModel, Level


class Faulty(Level):
    """A reward that looks up what is not there."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        weights: dict[str, float] = {}
        return super().forward(samples, prompts) * weights[prompts[0]]


class FaultyModel(AffineModel):
    """A model that divides by zero."""

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return super().decode(x, frames) * (1 // 0)


class Unloadable(AffineModel):
    """A model that must not be loaded."""

    def __init__(self, **settings: object) -> None:
        raise AssertionError("the model is loaded")
