r"""CLIPScore: how well an image shows its prompt.

.. math:: R(x, c) = \Bigl\langle \frac{f(x)}{\|f(x)\|}, \frac{g(c)}{\|g(c)\|} \Bigr\rangle

with CLIP's image tower :math:`f` and text tower :math:`g`. Unlike in the paper, the
cosine is not clamped at 0, which would end the gradient there, nor multiplied by 2.5, and the prompt has no prefix. Tables
of text-to-image models show it × 100.

References:
    | CLIPScore: A Reference-free Evaluation Metric for Image Captioning (Hessel et al., 2021)
    | https://arxiv.org/abs/2104.08718
"""

from types import MappingProxyType

from torch import Tensor

from rlr.rewards.networks.clip import CLIPReward
from rlr.rewards.networks.preprocessing import Fit, Preprocessing


class CLIPScore(CLIPReward):
    r"""The cosine of image and prompt in a CLIP model, in [-1, 1].

    Args:
        path: A folder in the layout of transformers, or a hub id.
        tokenizer: The folder or hub id of the tokenizer; by default ``path`` if that is a folder, else OpenAI's model.
        preprocessing: ``official`` resizes bytes with Pillow, ``training`` is the same on tensors, with a gradient.
        chunk: The number of images to score at once.
        cache: The number of prompts whose features are cached.
    """

    home = "openai/clip-vit-large-patch14"
    scales = MappingProxyType({"x100": 100.0})

    def __init__(
        self,
        path: str = "openai/clip-vit-large-patch14",
        tokenizer: str | None = None,
        preprocessing: Preprocessing | Fit = Preprocessing.training,
        chunk: int = 32,
        cache: int = 4096,
    ) -> None:
        super().__init__(path, tokenizer, preprocessing, chunk, cache)

    def _score(self, pixels: Tensor, texts: Tensor) -> Tensor:
        return self._cosine(pixels, texts)
