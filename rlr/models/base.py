"""The interface of a base model: prompts to a condition, a noisy latent to a clean one, a latent to pixels."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlr.schedules import Schedule


@dataclass(frozen=True)
class Size:
    r"""The size of a sample.

    Args:
        height: The height :math:`H` in pixels.
        width: The width :math:`W` in pixels.
        frames: The number :math:`F` of frames of a video; None for an image.
        fps: The frames a second at which a video is played; None for an image.
    """

    height: int
    width: int
    frames: int | None = None
    fps: float | None = None


MASK = "_mask"
"""The ending of the name of a mask: ``text_mask`` is the mask of ``text``."""


@dataclass(frozen=True)
class Condition:
    r"""What a model knows of :math:`B` prompts: named tensors, each with shape :math:`(B, *)`.

    A tensor ``NAME`` of shape :math:`(B, L, *)` may hold sequences of unequal lengths. The shorter ones are then padded at their
    end, and ``NAME_mask``, of type bool and shape :math:`(B, L)`, is True at their elements. :meth:`join` and :meth:`stack` pad and
    mask by themselves, so that a model that reads :meth:`mask` finds the same for a prompt in every batch. A model that does not
    read masks needs sequences of one fixed length.

    A condition may depend on the step (staged prompts): the chain asks for ``condition.at(t)`` in step :math:`t`.
    """

    tensors: dict[str, Tensor]

    def at(self, t: int) -> "Condition":
        r"""Returns the condition of step :math:`t`; here the same for all."""
        return self

    def mask(self, name: str) -> Tensor | None:
        r"""Returns the mask of a tensor, True at its elements, with shape :math:`(B, L)`; None where nothing is padded."""
        return self.tensors.get(f"{name}{MASK}")

    def map(self, function: Callable[[Tensor], Tensor]) -> "Condition":
        """Returns the condition with ``function`` applied to each tensor and mask (to repeat, select or move)."""
        return Condition({name: function(tensor) for name, tensor in self.tensors.items()})

    @staticmethod
    def join(conditions: Sequence["Condition"]) -> "Condition":
        r"""Returns the conditions of several batches as one, sequences padded to the longest.

        Raises:
            ValueError: If the tensors of one name differ in more than the batch and the length.
        """
        return Condition({name: torch.cat(tensors) for name, tensors in _padded(conditions).items()})

    @staticmethod
    def stack(conditions: Sequence["Condition"]) -> "Condition":
        r"""Returns :math:`k` conditions of the same batch as one, with tensors of shape :math:`(B, k, *)`; see :meth:`join`."""
        return Condition({name: torch.stack(tensors, 1) for name, tensors in _padded(conditions).items()})


def _padded(conditions: Sequence[Condition]) -> dict[str, list[Tensor]]:
    """Returns the tensors of each name, of one shape but for the batch, with a mask for each that is padded anywhere."""
    found: dict[str, list[Tensor]] = {}
    for name in (name for name in conditions[0].tensors if not name.endswith(MASK)):
        tensors = [condition.tensors[name] for condition in conditions]
        masks = [condition.mask(name) for condition in conditions]
        found[name] = tensors
        at = _length_axis(name, tensors, masks)
        if at is not None:
            longest = max(tensor.shape[at] for tensor in tensors)
            ones = (tensor.new_ones(tensor.shape[: at + 1], dtype=torch.bool) for tensor in tensors)
            whole = [one if mask is None else mask for one, mask in zip(ones, masks, strict=True)]
            found[name], found[f"{name}{MASK}"] = ([_extended(t, at, longest) for t in ts] for ts in (tensors, whole))
    return found


def _length_axis(name: str, tensors: Sequence[Tensor], masks: Sequence[Tensor | None]) -> int | None:
    """Returns the axis along which a tensor is padded, the last one of its mask; None where there is no padding."""
    axes = {mask.ndim - 1 for mask in masks if mask is not None}
    if len({tensor.ndim for tensor in tensors}) == 1:
        axes |= {at for at in range(1, tensors[0].ndim) if len({tensor.shape[at] for tensor in tensors}) > 1}
        if len(axes) < 2:
            return next(iter(axes), None)
    raise ValueError(
        f"condition {name!r}: expected tensors that differ in the batch and in one length, found shapes "
        f"{', '.join(str(tuple(tensor.shape)) for tensor in tensors)}; make the other sizes equal"
    )


def _extended(tensor: Tensor, at: int, length: int) -> Tensor:
    """Returns a tensor with zeros (False) at the end of an axis, as long as asked for."""
    missing = length - tensor.shape[at]
    zeros = tensor.new_zeros((*tensor.shape[:at], missing, *tensor.shape[at + 1 :]))
    return torch.cat([tensor, zeros], at) if missing else tensor


class DiffusionModel(nn.Module, ABC):
    r"""A text-to-image or text-to-video diffusion model.

    Weights that are to be trained have ``requires_grad``; all else is frozen, and the whole stays in eval mode,
    since a replayed step must equal the recorded one.
    """

    size: Size
    """The size of the samples."""

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return next(self.parameters()).device

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        r"""The weights :math:`\theta` to be aligned, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def train(self, mode: bool = True) -> "DiffusionModel":
        """Keeps the model in eval mode: dropout would make a replayed step differ from the recorded one."""
        return super().train(False)

    @property
    def has_reference(self) -> bool:
        """Whether the model can compute with the weights before training, see :meth:`reference`."""
        try:
            with self.reference():
                return True
        except ValueError:
            return False

    def reference(self) -> AbstractContextManager[None]:
        """Returns a context within which the model computes with the weights before training.

        Raises:
            ValueError: If it keeps no such weights.
        """
        raise ValueError(
            f"{type(self).__name__} keeps no weights of before training; load the base model a second time"
        )

    def networks(self) -> Mapping[str, nn.Module]:
        """Returns the denoising networks by their names in diffusers, ``unet`` or ``transformer``; adapters act on them."""
        return {}

    @abstractmethod
    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Returns the shape of one latent, without the batch.

        Raises:
            ValueError: If the model has no samples of this size.
        """

    @abstractmethod
    def schedule(self, size: Size) -> Schedule:
        """Returns the noise schedule, which may depend on the size."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Condition:
        r"""Returns the condition of :math:`B` prompts."""

    @abstractmethod
    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        r"""Returns the estimate :math:`\hat x_0 \approx E[x_0 \mid x_\tau]`, computed from what the network predicts.

        Args:
            x: The noisy latents :math:`x_\tau`, with shape :math:`(B, *)`, float32 or float64.
            time: The network's time :math:`\tau`.
            condition: The condition of the :math:`B` prompts.

        Returns:
            The estimate, with the shape and type of ``x``.
        """

    def skip(self, time: float) -> float:
        r"""Returns :math:`a` in :math:`\hat x_0 = a x_\tau + b F`, the slope in :math:`x_\tau` at a constant output :math:`F`
        of the network (:math:`c_\mathrm{skip}` of Karras et al., 2022).

        It depends on what the network predicts. By default it is that of a velocity on the straight path to which
        :math:`x_\tau / (\alpha + \sigma)` belongs, :math:`1 / (\alpha + \sigma)`.

        Args:
            time: The network's time :math:`\tau`.
        """
        alpha, sigma = self.schedule(self.size).levels(time)
        return 1 / (alpha + sigma)

    @abstractmethod
    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        r"""Returns pixels.

        Args:
            x: The latents, with shape :math:`(B, *)`.
            frames: The numbers of :math:`k` frames of each video, from 0 to :math:`F - 1`; by default all frames. A model
                that is able to decodes no other frame.

        Returns:
            Pixels in [0, 1]: images with shape :math:`(B, 3, H, W)`, or videos with shape :math:`(B, F, 3, H, W)` or
            :math:`(B, k, 3, H, W)`.
        """
