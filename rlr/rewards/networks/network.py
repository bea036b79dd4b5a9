"""The base of rewards of a frozen network: preprocessing, chunks of the batch, and cached text features."""

import warnings
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlr.rewards.base import Reward
from rlr.rewards.networks.preprocessing import Fit, Preprocessing, check_range, normalize_pixels


class TextCache:
    """A cache of one tensor a text and precision, which drops the least recently used.

    Args:
        capacity: The number of tensors.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._rows: OrderedDict[tuple[str, torch.dtype], Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(
        self, texts: Sequence[str], encode: Callable[[list[str]], Tensor], dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Returns the tensors of ``texts``, stacked on the CPU.

        Args:
            texts: The texts.
            encode: Returns the tensors of texts that are not cached; each text is passed once.
            dtype: The precision of ``encode``; tensors of another precision are not used.
        """
        rows = {text: self._rows[text, dtype] for text in texts if (text, dtype) in self._rows}
        new = [text for text in dict.fromkeys(texts) if text not in rows]
        if new:
            # a copy each: a view would keep the memory of the whole batch
            rows.update(zip(new, (row.clone() for row in encode(new).cpu()), strict=True))
        for text, row in rows.items():
            self._rows[text, dtype] = row
            self._rows.move_to_end((text, dtype))
        while len(self._rows) > self.capacity:
            self._rows.popitem(last=False)
        return torch.stack([rows[text] for text in texts])


class NetworkReward(Reward):
    """A reward of a frozen network.

    It computes in the precision of its weights, which are loaded in float32. Prompts longer than the network reads lose
    their end, as in the authors' programs; a warning says so.

    Args:
        preprocessing: ``official``, ``training``, or any :class:`~rlr.rewards.networks.preprocessing.Fit`.
        chunk: The number of images to score at once. With a gradient and more images than that, the backward pass
            computes each chunk a second time, which limits the memory to that of one chunk.
        cache: The number of prompts whose features are cached.
    """

    fits: ClassVar[Mapping[Preprocessing, Fit]]
    """The preprocessing that ``official`` and ``training`` stand for."""
    size: int
    """The side of the square images that the network reads, in pixels."""
    length: int
    """The number of tokens that the network reads of a prompt."""

    def __init__(
        self, preprocessing: Preprocessing | Fit = Preprocessing.training, chunk: int = 32, cache: int = 4096
    ) -> None:
        super().__init__()
        self.fit = self.fits[preprocessing] if isinstance(preprocessing, Preprocessing) else preprocessing
        self.differentiable = self.fit.differentiable
        self.chunk = chunk
        self.texts = TextCache(cache)
        self._warned = False

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        check_images(samples, prompts, self.label)
        return self.rate(samples, self._text_features(prompts))

    def rate(self, samples: Tensor, texts: Tensor) -> Tensor:
        r"""Returns the scores of samples given encoded texts, with shape :math:`(B)`."""
        return in_chunks(lambda x, y: self._score(self.preprocess(x), y), self.chunk, samples, texts)

    def preprocess(self, samples: Tensor) -> Tensor:
        r"""Returns the network's input, with shape :math:`(B, 3, s, s)`, from pixels in [0, 1]."""
        return normalize_pixels(self.fit(samples, self.size)).to(self._weight.dtype)

    @abstractmethod
    def _score(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """Returns the scores of preprocessed pixels given encoded texts."""

    @abstractmethod
    def _encode(self, prompt: str) -> Tensor:
        """Returns the features of one prompt, without a batch dimension."""

    def _is_cut(self, prompt: str) -> bool:
        """Returns whether the network ignores the end of a prompt; False by default."""
        return False

    def _text_features(self, prompts: Sequence[str]) -> Tensor:
        return self.texts(prompts, self._encode_each, self._weight.dtype).to(self._weight.device)

    # an inference tensor in the cache could not take part in a later backward pass
    @torch.inference_mode(False)
    @torch.no_grad()
    def _encode_each(self, prompts: list[str]) -> Tensor:
        """Encodes one prompt at a time.

        In a batch, the last digits of a prompt's features depend on the other prompts, through the padding and the size
        of the matrices. A resumed run encodes other prompts together, and would differ from an uninterrupted one.
        """
        self._warn([prompt for prompt in prompts if self._is_cut(prompt)])
        return torch.stack([self._encode(prompt) for prompt in prompts])

    @property
    def _weight(self) -> Tensor:
        return next(self.parameters())

    def _warn(self, cut: Sequence[str]) -> None:
        """Warns of the first prompts that are longer than the network reads; a data set may have thousands."""
        if cut and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.label} reads {self.length} tokens and ignores the end of {len(cut)} prompt(s), the first of them "
                f"{cut[0][:60]!r}…; shorten them if their ends matter; further such prompts are not named",
                stacklevel=2,
            )


def check_images(samples: Tensor, prompts: Sequence[str], label: str, slack: float = 1e-2) -> None:
    """Checks that samples are images with one prompt each, and pixels in [0, 1].

    Raises:
        ValueError: If they are not; it names the reward by its label.
    """
    _check_shape(
        samples, prompts, label, 4, "images of shape (B, 3, H, W)", "; wrap the reward in FrameReward for videos"
    )
    check_range(samples, label, slack)


def check_videos(samples: Tensor, prompts: Sequence[str], label: str, slack: float = 1e-2) -> None:
    """Checks that samples are videos with one prompt each, and pixels in [0, 1].

    Raises:
        ValueError: If they are not; it names the reward by its label.
    """
    _check_shape(samples, prompts, label, 5, "videos of shape (B, F, 3, H, W)")
    check_range(samples, label, slack)


def _check_shape(
    samples: Tensor, prompts: Sequence[str], label: str, dimensions: int, expected: str, remedy: str = ""
) -> None:
    if samples.ndim != dimensions or samples.shape[-3] != 3 or len(samples) != len(prompts) or not len(prompts):
        raise ValueError(
            f"{label}: expected {expected} and B prompts, got shape {tuple(samples.shape)} and {len(prompts)} prompts{remedy}"
        )


def in_chunks(function: Callable[..., Tensor], size: int, samples: Tensor, *others: Tensor) -> Tensor:
    """Applies ``function`` to at most ``size`` rows at once, recomputing each chunk where a gradient needs it."""
    parts = list(zip(*(tensor.split(size) for tensor in (samples, *others)), strict=True))
    if len(parts) == 1:
        return function(samples, *others)
    if not (torch.is_grad_enabled() and samples.requires_grad):
        return torch.cat([function(*part) for part in parts])
    # a frozen network draws no random numbers, so there is no random state to preserve
    again = [checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat(again)
