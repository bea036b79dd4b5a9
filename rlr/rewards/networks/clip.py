"""The base of PickScore and CLIPScore: CLIP models in the layout of transformers."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from rlr.rewards.networks.network import NetworkReward
from rlr.rewards.networks.preprocessing import CropShortest, Fit, PillowCropShortest, Preprocessing
from rlr.rewards.networks.pretrained import pretrained


class CLIPReward(NetworkReward):
    r"""A similarity of image and prompt in a CLIP model.

    Args:
        path: A folder, or a hub id.
        tokenizer: The folder or hub id of the tokenizer; by default ``path`` if that is a folder, else ``home``.
        preprocessing: ``official`` resizes bytes with Pillow, ``training`` is the same on tensors, with a gradient.
        chunk: The number of images to score at once.
        cache: The number of prompts whose features are cached.
    """

    fits: ClassVar[Mapping[Preprocessing, Fit]] = {
        Preprocessing.official: PillowCropShortest(),
        Preprocessing.training: CropShortest(),
    }
    home: ClassVar[str]
    """The hub id of the published model's tokenizer."""

    def __init__(
        self,
        path: str,
        tokenizer: str | None = None,
        preprocessing: Preprocessing | Fit = Preprocessing.training,
        chunk: int = 32,
        cache: int = 4096,
    ) -> None:
        super().__init__(preprocessing, chunk, cache)
        self.tokenizer = pretrained(CLIPTokenizer, tokenizer or (path if Path(path).is_dir() else self.home))
        self.clip = pretrained(CLIPModel, path)
        self.size = self.clip.config.vision_config.image_size
        self.length = self.clip.config.text_config.max_position_embeddings

    @abstractmethod
    def _score(self, pixels: Tensor, texts: Tensor) -> Tensor: ...

    def features(self, samples: Tensor) -> Tensor:
        r"""Returns the unit features of pixels in [0, 1] by the image tower, with shape :math:`(B, D)`."""
        return self._images(self.preprocess(samples))

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        r"""Returns the unit features of prompts by the text tower, with shape :math:`(B, D)`."""
        return self._text_features(prompts)

    @property
    def dimension(self) -> int:
        """The number :math:`D` of features."""
        return int(self.clip.config.projection_dim)

    def _cosine(self, pixels: Tensor, texts: Tensor) -> Tensor:
        return (self._images(pixels) * texts).sum(-1)

    def _images(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.clip.get_image_features(pixel_values=pixels).pooler_output, dim=-1)

    def _encode(self, prompt: str) -> Tensor:
        tokens = self.tokenizer(prompt, truncation=True, max_length=self.length, return_tensors="pt")
        texts = self.clip.get_text_features(**tokens.to(self._weight.device)).pooler_output
        return F.normalize(texts, dim=-1)[0]

    def _is_cut(self, prompt: str) -> bool:
        return len(self.tokenizer(prompt, verbose=False).input_ids) > self.length
