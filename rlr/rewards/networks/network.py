"""What rewards of a frozen network share: preprocessing, chunks of the batch, and texts encoded once."""

import warnings
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlr.rewards.base import Reward
from rlr.rewards.networks.preprocessing import Fit, Preprocessing, normalise


class TextCache:
    """Remembers one tensor a text and precision, the most recently used ones.

    Args:
        capacity: How many.
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
            encode: Makes the tensors of new texts, each once.
            dtype: The precision that it computes in; what was made in another one is not used.
        """
        rows = {text: self._rows[text, dtype] for text in texts if (text, dtype) in self._rows}
        new = [text for text in dict.fromkeys(texts) if text not in rows]
        if new:
            # a copy each: a view would keep the batch that it was encoded in
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
        preprocessing: One of the two named ways, or a :class:`~rlr.rewards.networks.preprocessing.Fit` of one's own.
        chunk: How many pictures to score at once. Where a gradient is asked for and there are more, each chunk is
            computed a second time in the backward pass, so that memory is that of one chunk.
        cache: How many prompts to remember.
    """

    fits: ClassVar[Mapping[Preprocessing, Fit]]
    """What the two named ways are."""
    size: int
    """The side of the square that the network reads."""
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

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self._check(samples, prompts)
        return self.rate(samples, self._text_features(prompts))

    def rate(self, samples: Tensor, texts: Tensor) -> Tensor:
        r"""Returns the scores of samples given texts that are encoded already, with shape :math:`(B)`."""
        return in_chunks(lambda x, y: self._score(self.preprocess(x), y), self.chunk, samples, texts)

    def preprocess(self, samples: Tensor) -> Tensor:
        r"""Returns what the network reads, with shape :math:`(B, 3, s, s)`, of pixels in [0, 1]."""
        return normalise(self.fit(samples, self.size)).to(self._weight.dtype)

    @abstractmethod
    def _score(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """Returns the scores of preprocessed pixels given encoded texts."""

    @abstractmethod
    def _encode(self, prompt: str) -> Tensor:
        """Returns what the network makes of one prompt, without a batch dimension."""

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

        In a batch, the last digits of a prompt's features would depend on the prompts beside it, by their padding and
        by the size of the matrices, and a resumed run meets other prompts for the first time together.
        """
        self._warn([prompt for prompt in prompts if self._is_cut(prompt)])
        return torch.stack([self._encode(prompt) for prompt in prompts])

    @property
    def _weight(self) -> Tensor:
        return next(self.parameters())

    def _warn(self, cut: Sequence[str]) -> None:
        """Warns of prompts that lose their end."""
        if cut:
            warnings.warn(
                f"{self.label} reads {self.length} tokens and ignores the end of {len(cut)} prompt(s), the first of them "
                f"{cut[0][:60]!r}…; shorten them if their ends matter",
                stacklevel=2,
            )

    def _check(self, samples: Tensor, prompts: Sequence[str], slack: float = 1e-2) -> None:
        if samples.ndim != 4 or samples.shape[1] != 3 or len(samples) != len(prompts) or not len(prompts):
            raise ValueError(
                f"{self.label} got samples of shape {tuple(samples.shape)} and {len(prompts)} prompts; give (B, 3, H, W) "
                "and B prompts (videos go through FrameReward)"
            )
        low, high = (value.item() for value in samples.detach().aminmax())
        if low < -slack or high > 1 + slack:
            raise ValueError(
                f"{self.label} got pixels in [{low:.3g}, {high:.3g}], and rewards read [0, 1]; map and clamp them, "
                "exactly once"
            )


def in_chunks(function: Callable[..., Tensor], size: int, samples: Tensor, *others: Tensor) -> Tensor:
    """Applies ``function`` to at most ``size`` rows at once, recomputing each chunk where a gradient needs it."""
    parts = list(zip(*(tensor.split(size) for tensor in (samples, *others)), strict=True))
    if len(parts) == 1:
        return function(samples, *others)
    if not (torch.is_grad_enabled() and samples.requires_grad):
        return torch.cat([function(*part) for part in parts])
    # nothing random happens in a frozen network, so there is no random state to keep
    again = [checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat(again)
