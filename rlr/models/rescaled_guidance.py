"""Guidance that keeps the length of the prompt's own velocity."""

import torch
from torch import Tensor

from rlr.models.base import DiffusionModel
from rlr.models.guidance import Guidance, Scale


class RescaledGuidance(Guidance):
    r"""Classifier-free guidance of a rectified flow whose result has, in each token, the norm of the prompt's velocity.

    With :math:`v = (x_\sigma - \hat x_0) / \sigma` for the prompt and for the negative prompt,

    .. math:: v_s = v_\varnothing + s \, (v_c - v_\varnothing), \qquad
        \hat x_0 = x_\sigma - \sigma \, v_s \, \frac{\lVert v_c \rVert}{\lVert v_s \rVert}

    The norms are those of the channels of a token, a square of the latent. :math:`\sigma` cancels, so that the displacements
    :math:`x_\sigma - \hat x_0` take the place of velocities. It is the guidance of ``QwenImagePipeline``, with ``scale`` for its
    ``true_cfg_scale``.

    Args:
        model: The base model, a rectified flow.
        scale: The scale :math:`s \geq 0`, or one that depends on time; 1 is no guidance.
        negative: The prompt :math:`\varnothing` to lead away from.
        batched: Whether both estimates come from one call, which takes twice the memory of two calls.
        patch: The latent's pixels of a side for one token, 2 for Qwen-Image.

    Raises:
        ValueError: If the model is not a rectified flow.
    """

    def __init__(
        self,
        model: DiffusionModel,
        scale: float | Scale = 4.0,
        negative: str = "",
        batched: bool = True,
        patch: int = 2,
    ) -> None:
        super().__init__(model, scale, negative, batched)
        if abs(model.skip(0.5) - 1) > 1e-9:
            raise ValueError(f"RescaledGuidance: expected a rectified flow, found {type(model).__name__}; use Guidance")
        self.patch = patch

    def combine(self, x: Tensor, positive: Tensor, negative: Tensor, scale: float) -> Tensor:
        p = self.patch
        toward, away = (_squares(x - estimate, p) for estimate in (positive, negative))
        guided = away + scale * (toward - away)
        length, own = (torch.linalg.vector_norm(v, dim=(1, -3, -1), keepdim=True) for v in (guided, toward))
        # a velocity of 0 keeps its length
        rescaled = guided * (own / length.clamp_min(torch.finfo(x.dtype).tiny))
        return x - rescaled.reshape(x.shape)


def _squares(x: Tensor, p: int) -> Tensor:
    r"""Returns a view with shape :math:`(B, C, *, h / p, p, w / p, p)`."""
    *others, height, width = x.shape
    return x.reshape(*others, height // p, p, width // p, p)
