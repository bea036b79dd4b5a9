r"""Objects by Mask2Former in the layout of transformers, with the postprocessing of mmdetection."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor

from rlr.rewards.geneval.names import NAMES
from rlr.rewards.geneval.objects import Detection
from rlr.rewards.networks.pretrained import pretrained
from rlr.rewards.pixels import Image


class Mask2Former(nn.Module):
    r"""Finds the objects of COCO.

    Of all pairs of a query and a class the 100 most probable are objects. With the class probability :math:`p`, the logits
    :math:`m` of the mask at the image's size and its pixels :math:`M = \{m > 0\}`, the confidence is
    :math:`p \, \frac{1}{|M|} \sum_M \mathrm{sigmoid}(m)`, and the box ends one pixel after the last one of :math:`M`.

    The published program runs mmdetection's weights of this network (Swin-S); the default here is the network's authors'
    own, trained on the same data, so confidences differ.

    Args:
        path: A folder, or a hub id, of a model of COCO's 80 kinds of objects, with its image processor.
        chunk: The number of images to look at together.
        names: The name of each class; by default GenEval's 80.

    Raises:
        ValueError: If the model has another number of classes than there are names.

    References:
        | Masked-attention Mask Transformer for Universal Image Segmentation (Cheng et al., 2022)
        | https://arxiv.org/abs/2112.01527
    """

    def __init__(
        self,
        path: str = "facebook/mask2former-swin-small-coco-instance",
        chunk: int = 8,
        names: Sequence[str] = NAMES,
    ) -> None:
        super().__init__()
        self.processor = pretrained(Mask2FormerImageProcessor, path)
        self.network = pretrained(Mask2FormerForUniversalSegmentation, path)
        self.chunk, self.names = chunk, tuple(names)
        if self.network.config.num_labels != len(self.names):
            raise ValueError(
                f"{path} has {self.network.config.num_labels} classes, expected the {len(self.names)} of names; use a model for "
                "instances of COCO, or set names"
            )

    @torch.no_grad()
    def forward(self, images: Sequence[Image]) -> list[list[Detection]]:
        """Returns the objects in each of some RGB images of 8-bit numbers."""
        parts = [images[k : k + self.chunk] for k in range(0, len(images), self.chunk)]
        return [found for part in parts for found in self._detect(part)]

    def _detect(self, images: Sequence[Image]) -> list[list[Detection]]:
        device = next(self.network.parameters()).device
        inputs = self.processor(list(images), return_tensors="pt")
        pixels = inputs["pixel_values"].to(device)
        outputs = self.network(pixel_values=pixels, pixel_mask=inputs["pixel_mask"].to(device))
        masks = F.interpolate(outputs.masks_queries_logits, pixels.shape[-2:], mode="bilinear")
        return [
            self._objects(outputs.class_queries_logits[k], _resized(masks[k], inputs["pixel_mask"][k], image.shape))
            for k, image in enumerate(images)
        ]

    def _objects(self, classes: Tensor, masks: Tensor) -> list[Detection]:
        r"""Returns the objects of class logits, with shape :math:`(Q, C + 1)`, and mask logits, :math:`(Q, H, W)`."""
        p = classes.softmax(-1)[:, :-1]
        best = p.flatten().topk(min(100, p.numel()))
        found = (self._object(float(p), int(k), masks, len(self.names)) for p, k in zip(*best, strict=True))
        return [one for one in found if one is not None]

    def _object(self, p: float, k: int, masks: Tensor, count: int) -> Detection | None:
        m = masks[k // count]
        inside = m > 0
        if not inside.any():
            # an object without a pixel has the confidence 0
            return None
        rows, columns = (inside.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        mask: np.ndarray[Any, np.dtype[np.bool_]] = inside.cpu().numpy()
        return Detection(self.names[k % count], p * float(m[inside].sigmoid().mean()), box, mask)


def _resized(masks: Tensor, seen: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns mask logits of a padded image at the size of the image itself, with shape (Q, H, W)."""
    height, width = int(seen.any(1).sum()), int(seen.any(0).sum())
    inner = masks[None, :, :height, :width]
    return F.interpolate(inner, tuple(shape[:2]), mode="bilinear")[0]
