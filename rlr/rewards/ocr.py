r"""OCR: whether an image shows the text that its prompt puts in quotes.

With the quoted text :math:`q` and the recognized text :math:`r`, both in lower case and without spaces,

.. math:: R(x, c) = \begin{cases} 1 & q \text{ is a substring of } r \\ 1 - \min(d(q, r), |q|) / |q| & \text{else}\end{cases}

where :math:`d` is the Levenshtein distance. A video's score is the mean of the positive scores of every fourth frame, where a
substring does not suffice, and 0 if no such frame scores above 0.

References:
    | Flow-GRPO: Training Flow Matching Models via Online RL (Liu et al., 2025), Section 4.1
    | https://arxiv.org/abs/2505.05470
    | https://github.com/yifan123/flow_grpo, ``flow_grpo/ocr.py``
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlr.io.text import quote
from rlr.rewards.base import Reward
from rlr.rewards.pixels import Image, to_images
from rlr.rewards.rapid_text import RapidText

TextEngine = Callable[[Sequence[Image]], Sequence[str]]
"""Returns the text in each of some RGB images of 8-bit numbers, its lines joined in reading order."""

INTERVAL = 4
"""The number of frames from one that is read to the next."""


class OCR(Reward):
    """Flow-GRPO's OCR score, in [0, 1].

    The quoted text of a prompt is what stands between its first two straight double quotes. If there is only one, it is
    all that follows, as in the published program.

    Args:
        engine: What reads the text: any callable that takes RGB images, arrays of 8-bit numbers with shape (H, W, 3), and
            returns one text an image. By default :class:`~rlr.rewards.rapid_text.RapidText`; the published program uses
            PaddleOCR 2.9.

    Raises:
        ImportError: If the default engine is not installed.
    """

    differentiable = False
    supports_video = True

    def __init__(self, engine: TextEngine | None = None) -> None:
        super().__init__()
        self.engine = engine or RapidText()

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score a sample.

        Raises:
            ValueError: If a prompt has no text in quotes, or the engine does not return one text an image.
        """
        targets = [plain(quoted(prompt)) for prompt in prompts]
        rate = self._rate_video if samples.ndim == 5 else self._rate_image
        images = to_images(samples, prompts, self.label)
        scores = [rate(image, target) for image, target in zip(images, targets, strict=True)]
        return torch.tensor(scores, dtype=samples.dtype, device=samples.device)

    def _rate_image(self, image: Image, target: str) -> float:
        (text,) = self._read([image])
        return 1.0 if target in text else similarity(target, text)

    def _rate_video(self, frames: Image, target: str) -> float:
        scores = [similarity(target, text) for text in self._read(list(frames[::INTERVAL]))]
        positive = [score for score in scores if score > 0]
        return sum(positive) / len(positive) if positive else 0.0

    def _read(self, images: Sequence[Image]) -> list[str]:
        texts = self.engine(images)
        if isinstance(texts, str) or len(texts) != len(images) or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"OCR.engine: expected a list of {len(images)} texts, one an image, got {str(texts)[:80]!r}; return '' for an "
                "image without text"
            )
        return [plain(text) for text in texts]


def quoted(prompt: str) -> str:
    """Returns the text between the first two double quotes of a prompt.

    Raises:
        ValueError: If the prompt has no such text.
    """
    target = prompt.split('"')[1] if '"' in prompt else ""
    if not plain(target):
        raise ValueError(
            f'OCR: expected a prompt with the text to show in straight double quotes, such as: a sign that says "open"; got '
            f"{quote(prompt)}"
        )
    return target


def plain(text: str) -> str:
    """Returns a text in lower case and without spaces."""
    return text.replace(" ", "").lower()


def similarity(target: str, text: str) -> float:
    r"""Returns :math:`1 - \min(d(q, r), |q|) / |q|` of target :math:`q` and text :math:`r`."""
    return 1 - min(levenshtein(target, text), len(target)) / len(target)


def levenshtein(a: str, b: str) -> int:
    """Returns the least number of insertions, deletions and replacements of one character that turn ``a`` into ``b``."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
