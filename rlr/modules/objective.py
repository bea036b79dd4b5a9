"""The objective of alignment: the reward of a latent, decoder included."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlr.models.base import DiffusionModel
from rlr.rewards.base import Excerpt, Reward


class Objective:
    r""":math:`x_0 \mapsto R(\mathrm{decode}(x_0), c)`, which estimators *maximise*.

    A reward of which lower is better enters with a minus sign. What decoder and reward return is checked here, at
    the one place where they meet. Of clips, only the frames that the reward asks for are decoded.

    Args:
        model: Decodes latents.
        reward: Scores pixels.
        patience: After how many batches in a row without any difference between their rewards to warn.
    """

    def __init__(self, model: DiffusionModel, reward: Reward, patience: int = 20) -> None:
        self.model = model
        self.reward = reward
        self.patience = patience
        self.sign = 1 if reward.higher_is_better else -1
        self.calls = 0
        """How many samples have been scored."""
        self.parts: dict[str, Tensor] | None = None
        """The reward's parts in the first call of what :meth:`of` has returned last."""
        self._constant = 0
        self._range_seen = False

    def of(self, prompts: Sequence[str], seed: int = 0) -> Callable[[Tensor], Tensor]:
        r"""Returns the objective of samples of these prompts, from :math:`(B, *)` to :math:`(B)`.

        ``seed`` decides which frames of clips a reward sees that draws some: the same in every call, so that rewards
        may be compared. The first call is that of the recorded roll-out, whose scores an estimator reports; others are
        of samples that it varies.
        """
        excerpt, self.parts = self._excerpt(seed), None
        return lambda x: self.sign * self._first(self._rate(excerpt.score, self._decode(x, excerpt.frames), prompts))

    def _first(self, rewards: Tensor) -> Tensor:
        if self.parts is None:
            self.parts = self.reward.parts
        return rewards

    @torch.no_grad()
    def introduce(self, x: Tensor, prompts: Sequence[str], seed: int = 0) -> None:
        """Gives a reward that learns from scores something to begin with: those of a run's first roll-out.

        Without it, the first update would be of scores on no common scale. They are forgotten after that update, which
        brings them again.
        """
        if self.reward.memory():
            self.of(prompts, seed)(x)
            self.reward.observe(self.parts or {})
            self.reward.settle(provisional=True)

    def rate(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns the reward itself of pixels in [0, 1], of clips with all frames, with shape :math:`(B)`.

        Raises:
            ValueError: If the pixels are not in [0, 1], or the reward is not one number a sample.
        """
        return self._rate(self.reward, pixels, prompts)

    def _excerpt(self, seed: int) -> Excerpt:
        frames = self.model.size.frames
        return Excerpt(None, self.reward) if frames is None else self.reward.excerpt(frames, seed)

    def _decode(self, x: Tensor, frames: Sequence[int] | None) -> Tensor:
        pixels = self.model.decode(x, frames)
        if frames is None:
            return pixels
        if pixels.ndim != 5 or pixels.shape[1] != len(frames):
            raise ValueError(
                f"{type(self.model).__name__}.decode returned pixels of shape {tuple(pixels.shape)} for "
                f"{len(frames)} frames; return (B, {len(frames)}, 3, H, W)"
            )
        return pixels

    def _rate(self, score: Callable[[Tensor, Sequence[str]], Tensor], pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        self._check_range(pixels)
        rewards = score(pixels, prompts)
        if rewards.shape != (len(prompts),):
            raise ValueError(
                f"the reward {type(self.reward).__name__} returned the shape {tuple(rewards.shape)} for "
                f"{len(prompts)} prompts and pixels {tuple(pixels.shape)}; return one score a sample, "
                f"({len(prompts)},)"
            )
        self.calls += len(prompts)
        return rewards

    def watch(self, rewards: Tensor) -> None:
        """Takes note of the rewards of a recorded roll-out, and warns, once, of one that tells no sample from another."""
        if self.parts is not None:
            self.reward.observe(self.parts)
        constant = len(rewards) > 1 and bool((rewards == rewards[0]).all())
        self._constant = self._constant + 1 if constant else 0
        if self._constant == self.patience:
            warnings.warn(
                f"the reward {type(self.reward).__name__} gave all samples of a batch the same score "
                f"({float(rewards[0]):g}) {self.patience} times in a row, and equal scores teach nothing; "
                "check the reward, or use larger batches",
                stacklevel=2,
            )

    @torch.no_grad()
    def _check_range(self, pixels: Tensor, slack: float = 1e-2) -> None:
        if self._range_seen:
            return
        self._range_seen = True
        low, high = pixels.min().item(), pixels.max().item()
        if low < -slack or high > 1 + slack:
            raise ValueError(
                f"{type(self.model).__name__}.decode returned pixels in [{low:.3g}, {high:.3g}], and rewards read "
                "[0, 1]; let decode map and clamp them, exactly once"
            )
