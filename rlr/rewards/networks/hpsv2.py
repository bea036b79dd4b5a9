r"""HPSv2: human preference as the cosine of image and prompt in a CLIP model tuned on preferences.

.. math:: R(x, c) = \Bigl\langle \frac{f(x)}{\|f(x)\|}, \frac{g(c)}{\|g(c)\|} \Bigr\rangle

with image tower :math:`f` and text tower :math:`g` of ViT-H-14. Tables show it × 100, about 14 … 34. Versions 2.0 and 2.1
differ in their weights alone, and their scores cannot be compared.

References:
    | Human Preference Score v2: A Solid Benchmark for Evaluating Human Preferences of Text-to-Image Synthesis
    | (Wu et al., 2023)
    | https://arxiv.org/abs/2306.09341
"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from rlr.io.hub import Published, find
from rlr.io.weights import build, read_state
from rlr.rewards.networks.network import NetworkReward
from rlr.rewards.networks.preprocessing import Fit, PadLongest, Preprocessing, Squash

WEIGHTS, CONFIG, MERGES = "open_clip_model.safetensors", "open_clip_config.json", "merges.txt.gz"
"""The files of a folder in open_clip's layout; the last is needed for a vocabulary other than CLIP's."""


class HPSVersion(Enum):
    """A version of the published weights."""

    v2_0 = Published("HPS_v2_compressed.pt", "md5", "fd9180de357abf01fdb4eaad64631db4")
    v2_1 = Published("HPS_v2.1_compressed.pt", "md5", "4067542e34ba2553a738c5ac6c1d75c0")

    def __str__(self) -> str:
        return self.name.removeprefix("v").replace("_", ".")


class HPSv2(NetworkReward):
    r"""HPSv2 on open_clip's model.

    Args:
        path: A file of weights, a folder that holds it under its published name, or a hub id.
        version: The version of the weights, 2.0 or 2.1.
        architecture: The name of a model of open_clip, or ``local-dir:`` and a folder with a file
            ``open_clip_config.json``.
        merges: A file of merges for the tokenizer, in the format of CLIP's ``bpe_simple_vocab_16e6.txt.gz``; by default
            CLIP's own.
        preprocessing: ``official`` pads the shorter side (bicubic), ``training`` resizes both sides (bilinear); both
            have a gradient.
        chunk: The number of images to score at once.
        cache: The number of prompts whose features are cached.
        verify: Whether a file with a published name must have the published checksum.
    """

    fits: ClassVar[Mapping[Preprocessing, Fit]] = {
        Preprocessing.official: PadLongest(),
        Preprocessing.training: Squash("bilinear"),
    }
    scales = MappingProxyType({"x100": 100.0})

    def __init__(
        self,
        path: str = "xswu/HPSv2",
        version: HPSVersion = HPSVersion.v2_1,
        architecture: str = "ViT-H-14",
        merges: str | None = None,
        preprocessing: Preprocessing | Fit = Preprocessing.training,
        chunk: int = 32,
        cache: int = 4096,
        verify: bool = True,
    ) -> None:
        # imported here because the import takes seconds
        from open_clip import CLIP, SimpleTokenizer

        super().__init__(preprocessing, chunk, cache)
        self.version = version
        config = _config(architecture)
        file = find(path, [version.value], verify)
        _check_version(file, version)
        self.clip = build(lambda: CLIP(**config), read_state(file), file)
        self.size, self.length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
        self.tokenizer = SimpleTokenizer(*([merges] if merges else []), context_length=self.length)

    @property
    def label(self) -> str:
        """The name with its version, such as ``HPSv2.1``."""
        return f"HPSv{self.version}"

    def _score(self, pixels: Tensor, texts: Tensor) -> Tensor:
        return (self.clip.encode_image(pixels, normalize=True) * texts).sum(-1)

    def _encode(self, prompt: str) -> Tensor:
        tokens = self.tokenizer([prompt]).to(self._weight.device)
        return F.normalize(self.clip.encode_text(tokens), dim=-1)[0]

    def _is_cut(self, prompt: str) -> bool:
        # the text feature is that of the first end token
        end = int((self.tokenizer([prompt])[0] == self.tokenizer.eot_token_id).int().argmax())
        return end - 1 < len(self.tokenizer.encode(prompt))


def _config(architecture: str) -> dict[str, Any]:
    from open_clip import get_model_config

    try:
        config = get_model_config(architecture)
    except OSError:
        config = None
    if config is None:
        raise ValueError(
            f"open_clip knows no architecture {architecture!r}; name one of open_clip.list_models(), or write "
            "local-dir: and a folder that holds open_clip_config.json"
        )
    return config


def _check_version(file: Path, version: HPSVersion) -> None:
    for other in HPSVersion:
        if file.name == other.value.name and other is not version:
            raise ValueError(
                f"{file} is the file of HPSv{other}, and version {version} was asked for; pass version={other.name}"
            )
