r"""The relative reward of SRPO: how much better a sample fits its prompt with some words than with others."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from rlr.rewards.base import FrameSelection, Reward, Scores
from rlr.rewards.wrapper import Wrapper

Score = Callable[[Tensor, Sequence[str]], Scores]


class Relative(Wrapper):
    r"""The difference of a reward under two prompts, :math:`(1 + k) \, R(x, w_+ c) - R(x, w_- c)`, for the prompt :math:`c`.

    What the reward says of a sample whatever its prompt, such as a liking for bright colors, cancels for :math:`k = 0`. Each prompt
    always gets the same of several words; the published code draws them anew in each update.

    References:
        | Directly Aligning the Full Diffusion Trajectory with Fine-Grained Human Preference (Shen et al., 2025), Eq. 8
        | https://arxiv.org/abs/2509.06942

    Args:
        reward: The reward :math:`R`, which has to read prompts.
        positive: The words :math:`w_+`; an empty one leaves the prompt as it is. The default ones are published.
        negative: The words :math:`w_-`.
        excess: The weight :math:`k \geq 0`, 0 as published.
        template: How words and prompt are joined.

    Raises:
        ValueError: If there are no words, or the template has no place for them and for the prompt.
    """

    def __init__(
        self,
        reward: Reward,
        positive: Sequence[str] = ("Natural-lighting", "Detail", "Detailed", "Real"),
        negative: Sequence[str] = ("Concept art", "Painting", "Anime"),
        excess: float = 0.0,
        template: str = "{words}. {prompt}",
    ) -> None:
        super().__init__(reward)
        if not (positive and negative) or excess < 0:
            raise ValueError(
                f"Relative needs positive and negative words and excess >= 0, and got {list(positive)}, {list(negative)} "
                f"and {excess}"
            )
        if "{words}" not in template or "{prompt}" not in template:
            raise ValueError(f"Relative.template: expected {{words}} and {{prompt}} in it, got {template!r}")
        self.supports_images, self.supports_video = reward.supports_images, reward.supports_video
        self.positive, self.negative, self.excess, self.template = tuple(positive), tuple(negative), excess, template

    @property
    def label(self) -> str:
        return f"{self.reward.label}_relative"

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.score(samples, prompts).values

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Scores:
        return self._difference(self.reward.score, samples, prompts)

    def select_frames(self, frames: int, seed: int) -> FrameSelection:
        inner = self.reward.select_frames(frames, seed)
        return FrameSelection(inner.frames, lambda samples, prompts: self._difference(inner.score, samples, prompts))

    def _difference(self, score: Score, samples: Tensor, prompts: Sequence[str]) -> Scores:
        positive, negative = (score(samples, self._texts(prompts, words)) for words in (self.positive, self.negative))
        # the parts are those of the positive score, so that a combination learns the scale of its parts from them
        return replace(positive, values=(1 + self.excess) * positive.values - negative.values)

    def _texts(self, prompts: Sequence[str], words: Sequence[str]) -> list[str]:
        return [self._join(words[zlib.crc32(prompt.encode()) % len(words)], prompt) for prompt in prompts]

    def _join(self, words: str, prompt: str) -> str:
        return self.template.format(words=words, prompt=prompt) if words else str(prompt)
