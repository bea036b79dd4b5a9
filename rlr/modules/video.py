"""Alignment of text-to-video models."""

from rlr.modules.alignment import Alignment


class VideoAlignment(Alignment):
    r"""Aligns a text-to-video model: latents :math:`(B, C, F, h, w)` decode to clips :math:`(B, F, 3, H, W)`.

    A reward of pictures sees clips through :class:`~rlr.rewards.FrameReward`. With ``FrameReward``'s default of one
    random frame, ``FirstOrder(steps=1)`` and ``offload_activations`` it is VADER.

    References:
        | Video Diffusion Alignment via Reward Gradients (Prabhudesai et al., 2024)
        | https://arxiv.org/abs/2407.08737
    """

    def _check(self) -> None:
        model = self.chain.model
        if not model.size.frames:
            raise ValueError(
                f"VideoAlignment trains a model of clips, and {type(model).__name__} makes pictures (its frames is "
                "None); use ImageAlignment"
            )
        if not model.size.fps:
            raise ValueError(
                f"clips of {type(model).__name__} have {model.size.frames} frames and no rate to show them at; set its fps"
            )
        super()._check()
