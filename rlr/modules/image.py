"""Alignment of text-to-image models."""

from rlr.modules.alignment import Alignment


class ImageAlignment(Alignment):
    r"""Aligns a text-to-image model: latents decode to pixels with shape :math:`(B, 3, H, W)`."""

    def _check(self) -> None:
        model = self.chain.model
        if model.size.frames:
            raise ValueError(
                f"ImageAlignment trains a model of images, and {type(model).__name__} makes videos of {model.size.frames} "
                "frames; use VideoAlignment"
            )
        super()._check()
