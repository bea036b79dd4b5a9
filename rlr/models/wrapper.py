"""A model around another one."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from torch import Tensor, nn

from rlr.models.base import Condition, DiffusionModel, Size
from rlr.schedules import Schedule


class ModelWrapper(DiffusionModel):
    """A model that computes as another one does; a subclass changes a part of it.

    Args:
        model: The other model.
    """

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.model = model

    @property
    def size(self) -> Size:  # type: ignore[override]
        return self.model.size

    def reference(self) -> AbstractContextManager[None]:
        return self.model.reference()

    def networks(self) -> Mapping[str, nn.Module]:
        return self.model.networks()

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return self.model.latent_shape(size)

    def schedule(self, size: Size) -> Schedule:
        return self.model.schedule(size)

    def encode(self, prompts: Sequence[str]) -> Condition:
        return self.model.encode(prompts)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        return self.model.denoise(x, time, condition)

    def skip(self, time: float) -> float:
        return self.model.skip(time)

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return self.model.decode(x, frames)


def unwrap(model: DiffusionModel) -> DiffusionModel:
    """Returns the model within all wrappers."""
    while isinstance(model, ModelWrapper):
        model = model.model
    return model
