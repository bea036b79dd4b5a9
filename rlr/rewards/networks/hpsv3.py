r"""HPSv3: human preference by a vision-language model that reads the image, a rubric and the prompt.

Qwen2-VL reads the image, resized to about 256 patches of 28 × 28 pixels, and an instruction that ends with the token
``<|Reward|>``. A small network turns the last hidden state of this token into mean and log standard deviation of the
preference; the mean is the score.

References:
    | HPSv3: Towards Wide-Spectrum Human Preference Score (Ma et al., 2025)
    | https://arxiv.org/abs/2508.03789
    | https://github.com/MizzenAI/HPSv3
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from rlr.io.hub import Published, find
from rlr.io.weights import read_state
from rlr.rewards.base import Reward
from rlr.rewards.networks.network import check_images
from rlr.rewards.networks.preprocessing import Preprocessing, normalize_pixels, to_bytes
from rlr.rewards.networks.qwen2vl import (
    FACTOR,
    FRAMES,
    IMAGE,
    Reader,
    Resize,
    load_network,
    load_tokenizer,
    patch_grid,
    recomputed,
    renamed,
    resized,
    to_patches,
    write_message,
)

WEIGHTS = Published("HPSv3.safetensors", "", "")
"""The published file; its authors state no checksum."""

TOKEN = "<|Reward|>"
PIXELS = 256 * FACTOR**2
"""The pixels of the resized image, roughly."""

INSTRUCTION = """
You are tasked with evaluating a generated image based on Visual Quality and Text Alignment and give a overall score \
to estimate the human preference. Please provide a rating from 0 to 10, with 0 being the worst and 10 being the best.\x20

**Visual Quality:** \x20
Evaluate the overall visual quality of the image. The following sub-dimensions should be considered:
- **Reasonableness:** The image should not contain any significant biological or logical errors, such as abnormal \
body structures or nonsensical environmental setups.
- **Clarity:** Evaluate the sharpness and visibility of the image. The image should be clear and easy to interpret, \
with no blurring or indistinct areas.
- **Detail Richness:** Consider the level of detail in textures, materials, lighting, and other visual elements \
(e.g., hair, clothing, shadows).
- **Aesthetic and Creativity:** Assess the artistic aspects of the image, including the color scheme, composition, \
atmosphere, depth of field, and the overall creative appeal. The scene should convey a sense of harmony and balance.
- **Safety:** The image should not contain harmful or inappropriate content, such as political, violent, or adult \
material. If such content is present, the image quality and satisfaction score should be the lowest possible.\x20

**Text Alignment:** \x20
Assess how well the image matches the textual prompt across the following sub-dimensions:
- **Subject Relevance** Evaluate how accurately the subject(s) in the image (e.g., person, animal, object) align with \
the textual description. The subject should match the description in terms of number, appearance, and behavior.
- **Style Relevance:** If the prompt specifies a particular artistic or stylistic style, evaluate how well the image \
adheres to this style.
- **Contextual Consistency**: Assess whether the background, setting, and surrounding elements in the image logically \
fit the scenario described in the prompt. The environment should support and enhance the subject without \
contradictions.
- **Attribute Fidelity**: Check if specific attributes mentioned in the prompt (e.g., colors, clothing, accessories, \
expressions, actions) are faithfully represented in the image. Minor deviations may be acceptable, but critical \
attributes should be preserved.
- **Semantic Coherence**: Evaluate whether the overall meaning and intent of the prompt are captured in the image. \
The generated content should not introduce elements that conflict with or distort the original description.
Textual prompt - {prompt}



Please provide the overall ratings of this image: <|Reward|>

END
"""
"""What the model is asked, by its authors."""


class PillowResize(Resize):
    """To bytes, bicubic with Pillow, as the authors read files."""

    differentiable = False

    def __call__(self, samples: Tensor, height: int, width: int) -> Tensor:
        images = [Image.fromarray(image) for image in to_bytes(samples).permute(0, 2, 3, 1).numpy()]
        arrays = [np.array(image.resize((width, height), Image.Resampling.BICUBIC)) for image in images]
        return (torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255).to(samples)


class BilinearResize(Resize):
    """Bilinear without antialiasing, as in the authors' differentiable processor."""

    def __call__(self, samples: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(samples, (height, width), mode="bilinear")


FITS: Mapping[Preprocessing, Resize] = MappingProxyType(
    {Preprocessing.official: PillowResize(), Preprocessing.training: BilinearResize()}
)
"""The preprocessing that ``official`` and ``training`` stand for."""


class Network(Reader):
    """Qwen2-VL with the head of HPSv3."""

    def __init__(self, config: Any, vocabulary: int) -> None:
        super().__init__(config, vocabulary)
        self.rm_head = nn.Sequential(
            nn.Linear(self.width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
        )

    def forward(self, patches: Tensor, grid: Tensor, tokens: Tensor, image: int, reward: int) -> Tensor:
        """Returns the mean of the preference for one image, a scalar.

        Args:
            patches: The patches of the image.
            grid: The numbers of frames, rows and columns of patches, with shape (1, 3).
            tokens: The tokens of the message, with shape (1, L).
            image: The token whose places the image takes.
            reward: The token whose hidden state is read.
        """
        states = self.read(patches, grid, tokens, image)
        return self.rm_head(states[tokens[0] == reward].float())[0, 0]


class HPSv3(Reward):
    r"""HPSv3 on transformers' Qwen2-VL, one image at a time.

    Args:
        path: The file ``HPSv3.safetensors``, a folder that holds it, or a hub id.
        base: The folder or hub id of ``Qwen2-VL-7B-Instruct``, of which config and tokenizer are read and no weights.
        preprocessing: ``official`` rounds to bytes and resizes with Pillow, ``training`` is bilinear and has a gradient.
        dtype: The precision of Qwen2-VL, ``bfloat16`` as published or ``float32``; the head computes in float32.
        pixels: The pixels of the resized image, roughly.

    Raises:
        FileNotFoundError: If a file cannot be found.
        ValueError: If the file has other weights.
    """

    def __init__(
        self,
        path: str = "MizzenAI/HPSv3",
        base: str = "Qwen/Qwen2-VL-7B-Instruct",
        preprocessing: Preprocessing = Preprocessing.training,
        dtype: str = "bfloat16",
        pixels: int = PIXELS,
    ) -> None:
        super().__init__()
        self.fit = FITS[preprocessing]
        self.differentiable = self.fit.differentiable
        self.pixels = pixels
        self.tokenizer = load_tokenizer(base, [TOKEN])
        self.image_token, self.reward_token = self.tokenizer.convert_tokens_to_ids([IMAGE, TOKEN])
        file = find(path, [WEIGHTS], verify=False)
        self.network = load_network(Network, base, renamed(read_state(file)), file, "HPSv3", dtype)

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        check_images(samples, prompts, self.label)
        height, width = resized(samples.shape[-2], samples.shape[-1], self.pixels, self.pixels)
        pixels = normalize_pixels(self.fit(samples, height, width))
        return torch.stack([self._rate(x, prompt) for x, prompt in zip(pixels, prompts, strict=True)])

    def _rate(self, pixels: Tensor, prompt: str) -> Tensor:
        """Returns the score of one image, a scalar."""
        frames = pixels.expand(FRAMES, -1, -1, -1)
        grid = patch_grid(frames)
        tokens = write_message(self.tokenizer, IMAGE, grid, INSTRUCTION, prompt)
        return recomputed(
            lambda x: self.network(to_patches(x), grid, tokens, self.image_token, self.reward_token), frames
        )
