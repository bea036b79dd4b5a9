r"""The color of an object, by CLIP."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor, nn
from torch.nn import functional as F

from rlr.io.weights import freeze
from rlr.rewards.geneval.names import COLORS
from rlr.rewards.geneval.objects import Detection
from rlr.rewards.pixels import Image

TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
"""What crops are compared with."""

BACKGROUND = (153, 153, 153)
"""The gray, ``#999``, of the pixels that do not belong to the object."""


class CLIPColors(nn.Module):
    r"""Names the color whose texts are nearest to the crop of an object, on gray.

    The feature of a color is the mean over three templates of the unit features of the text, of length 1 again.

    Args:
        architecture: The name of a model of open_clip, or ``local-dir:`` and a folder with ``open_clip_config.json``.
        pretrained: The weights, a tag of open_clip or a file. OpenAI's weights in a file need the architecture
            ``ViT-L-14-quickgelu``; the tag ``openai`` sets that itself.
    """

    def __init__(self, architecture: str = "ViT-L-14", pretrained: str | None = "openai") -> None:
        # imported here because the import takes seconds
        from open_clip import create_model_and_transforms, get_tokenizer

        super().__init__()
        clip, _, transform = create_model_and_transforms(architecture, pretrained=pretrained)
        self.clip: Any = freeze(clip)
        self.transform: Callable[[PILImage.Image], Tensor] = transform
        self.tokenizer = get_tokenizer(architecture)
        self._features: dict[str, Tensor] = {}

    @torch.no_grad()
    def forward(self, image: Image, detections: Sequence[Detection], name: str) -> list[str]:
        """Returns the colors of objects of one name in an RGB image of 8-bit numbers."""
        device = next(self.clip.parameters()).device
        crops = torch.stack([self.transform(crop(image, one)) for one in detections]).to(device)
        similarities = F.normalize(self.clip.encode_image(crops), dim=-1) @ self._texts(name).to(device).T
        return [COLORS[k] for k in similarities.argmax(1).tolist()]

    def _texts(self, name: str) -> Tensor:
        """Returns the feature of each color, with shape (10, D)."""
        if name not in self._features:
            self._features[name] = torch.stack([self._color(color, name) for color in COLORS]).cpu()
        return self._features[name]

    def _color(self, color: str, name: str) -> Tensor:
        device = next(self.clip.parameters()).device
        tokens = self.tokenizer([template.format(color=color, name=name) for template in TEMPLATES]).to(device)
        return F.normalize(F.normalize(self.clip.encode_text(tokens), dim=-1).mean(0), dim=-1)


def crop(image: Image, detection: Detection) -> PILImage.Image:
    """Returns the box of an object, gray where its mask says that it is not."""
    whole = PILImage.fromarray(image)
    if detection.mask is not None:
        blank = PILImage.new("RGB", whole.size, BACKGROUND)
        whole = PILImage.composite(whole, blank, PILImage.fromarray(detection.mask))
    return whole.crop(detection.box)
