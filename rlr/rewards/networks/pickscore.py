r"""PickScore: human preference as a CLIP similarity.

.. math:: R(x, c) = e^s \, \Bigl\langle \frac{f(x)}{\|f(x)\|}, \frac{g(c)}{\|g(c)\|} \Bigr\rangle

with image tower :math:`f`, text tower :math:`g` and logit scale :math:`s`, about 15 … 26 for the published weights.

References:
    | Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation (Kirstain et al., 2023)
    | https://arxiv.org/abs/2305.01569
"""

from torch import Tensor

from rlr.rewards.networks.clip import CLIPReward
from rlr.rewards.networks.preprocessing import Fit, Preprocessing


class PickScore(CLIPReward):
    r"""PickScore, or any CLIP model in the folder layout of transformers.

    Args:
        path: A folder, or a hub id.
        tokenizer: The folder or hub id of the tokenizer; by default ``path`` if that is a folder, else LAION's model,
            from which PickScore was fine-tuned.
        preprocessing: ``official`` resizes bytes with Pillow, ``training`` is the same on tensors, with a gradient.
        chunk: The number of images to score at once.
        cache: The number of prompts whose features are cached.
    """

    home = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

    def __init__(
        self,
        path: str = "yuvalkirstain/PickScore_v1",
        tokenizer: str | None = None,
        preprocessing: Preprocessing | Fit = Preprocessing.training,
        chunk: int = 32,
        cache: int = 4096,
    ) -> None:
        super().__init__(path, tokenizer, preprocessing, chunk, cache)

    def _score(self, pixels: Tensor, texts: Tensor) -> Tensor:
        return self.clip.logit_scale.exp() * self._cosine(pixels, texts)
