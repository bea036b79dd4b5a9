"""Alignment of text-to-video models."""

from rlr.modules.alignment import Alignment


class VideoAlignment(Alignment):
    r"""Aligns a text-to-video model: latents :math:`(B, C, F, h, w)` decode to videos :math:`(B, F, 3, H, W)`.

    A reward of images scores videos through :class:`~rlr.rewards.FrameReward`. With ``FrameReward``'s default of one
    random frame, ``FirstOrder(steps=1)`` and ``memory.offload_activations`` it is VADER.

    References:
        | Video Diffusion Alignment via Reward Gradients (Prabhudesai et al., 2024)
        | https://arxiv.org/abs/2407.08737
    """

    def _check(self) -> None:
        model = self.chain.model
        if not model.size.frames:
            raise ValueError(
                f"VideoAlignment trains a model of videos, and {type(model).__name__} makes images (its frames are "
                "None); use ImageAlignment"
            )
        if not model.size.fps:
            raise ValueError(
                f"videos of {type(model).__name__} have {model.size.frames} frames and no frame rate; set its fps"
            )
        super()._check()
