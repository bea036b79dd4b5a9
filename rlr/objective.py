"""The objective of alignment: the reward of a latent, decoder included."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlr.models.base import DiffusionModel
from rlr.rewards.base import FrameSelection, Reward, Scores
from rlr.rewards.slopes import scored
from rlr.scoring import AtOnce, Pending, Scoring


@dataclass(frozen=True)
class LatentObjective:
    """Scores latents; an :class:`~rlr.rollout.Objective` that can be asked ahead.

    Args:
        objective: Decodes latents and scores pixels.
        selection: The frames of videos that are decoded and scored.
    """

    objective: "Objective"
    selection: FrameSelection

    def __call__(self, x: Tensor, prompts: Sequence[str]) -> Scores:
        r"""Returns the scores of final latents :math:`x_0`, with shape :math:`(B, *)`, of :math:`B` prompts."""
        return self.begin(x, prompts)()

    def begin(self, x: Tensor, prompts: Sequence[str]) -> Pending[Scores]:
        """Decodes latents here, begins to score them, and returns what waits for the scores."""
        return scored(self._begin, x, prompts, self.objective.micro_batch)

    def _begin(self, x: Tensor, prompts: Sequence[str]) -> Pending[Scores]:
        return self.objective.begin(self.selection, self.objective.decode(x, self.selection.frames), prompts)


class Objective:
    r""":math:`x_0 \mapsto R(\mathrm{decode}(x_0), c)`.

    What decoder and reward return is checked here, at the one place where they meet. Of videos, only the frames that the
    reward asks for are decoded.

    Args:
        model: Decodes latents.
        reward: Scores pixels.
        patience: The number of consecutive rounds of equal rewards after which to warn.
    """

    def __init__(self, model: DiffusionModel, reward: Reward, patience: int = 20) -> None:
        self.model = model
        self.reward = reward
        self.patience = patience
        self.scoring: Scoring = AtOnce()
        """Where the reward is computed."""
        self.micro_batch: int | None = None
        """The most latents that are decoded and scored at once; None for all of a batch."""
        self.calls = 0
        """The number of samples that have been scored, or are about to be."""
        self._constant = 0
        self._range_checked = False

    def of_frames(self, seed: int = 0) -> LatentObjective:
        r"""Returns the objective of latents.

        Args:
            seed: Decides which frames of videos a reward scores that draws some. They are the same in every call, so that
                rewards can be compared.
        """
        return LatentObjective(self, self._selection(seed))

    def rate(self, pixels: Tensor, prompts: Sequence[str]) -> Scores:
        r"""Returns the scores of pixels in [0, 1], of videos with all frames.

        Raises:
            ValueError: If the pixels are not in [0, 1], or the reward is not one number a sample.
        """
        return self.begin(FrameSelection(None, self.reward.score), pixels, prompts)()

    def _selection(self, seed: int) -> FrameSelection:
        frames = self.model.size.frames
        return FrameSelection(None, self.reward.score) if frames is None else self.reward.select_frames(frames, seed)

    def decode(self, x: Tensor, frames: Sequence[int] | None) -> Tensor:
        """Returns the pixels of latents, of videos those of some frames.

        Raises:
            ValueError: If the decoder returns another number of frames.
        """
        pixels = self.model.decode(x, frames)
        if frames is None:
            return pixels
        if pixels.ndim != 5 or pixels.shape[1] != len(frames):
            raise ValueError(
                f"{type(self.model).__name__}.decode returned pixels of shape {tuple(pixels.shape)} for "
                f"{len(frames)} frames; expected (B, {len(frames)}, 3, H, W)"
            )
        return pixels

    def begin(self, selection: FrameSelection, pixels: Tensor, prompts: Sequence[str]) -> Pending[Scores]:
        """Begins to score pixels of selected frames, and returns what waits for the scores."""
        self._check_range(pixels)
        self.calls += len(prompts)
        return self.scoring.begin(lambda: self._score(selection, pixels, prompts))

    def _score(self, selection: FrameSelection, pixels: Tensor, prompts: Sequence[str]) -> Scores:
        scores = selection.score(pixels, prompts)
        if scores.values.shape != (len(prompts),):
            raise ValueError(
                f"the reward {self.reward.label} returned scores of shape {tuple(scores.values.shape)} for "
                f"{len(prompts)} prompts and pixels of shape {tuple(pixels.shape)}; expected one score a sample, "
                f"({len(prompts)},)"
            )
        return replace(scores, fault=self._fault(pixels, scores, prompts))

    @torch.no_grad()
    def _fault(self, pixels: Tensor, scores: Scores, prompts: Sequence[str]) -> str | None:
        """Names what made a score not finite, and the first prompt that it happened to."""
        for what, finite in (
            (
                f"{type(self.model).__name__}.decode returned pixels that are not finite",
                pixels.flatten(1).isfinite().all(1),
            ),
            (f"the reward {self.reward.label} returned scores that are not finite", scores.values.isfinite()),
        ):
            bad = (~finite).nonzero().flatten().tolist()
            if bad:
                prompt = str(prompts[bad[0]])
                shown = prompt if len(prompt) <= 80 else f"{prompt[:79]}…"
                return f"{what} for {len(bad)} of {len(prompts)} samples, the first of the prompt {shown!r}"
        return None

    def warn_if_constant(self, rewards: Tensor) -> None:
        """Warns, once, after ``patience`` rounds in a row whose rewards are all equal."""
        constant = len(rewards) > 1 and bool((rewards == rewards[0]).all())
        self._constant = self._constant + 1 if constant else 0
        if self._constant == self.patience:
            warnings.warn(
                f"the reward {self.reward.label} gave all samples of a round the same score "
                f"({float(rewards[0]):g}) {self.patience} times in a row, and equal scores teach nothing; "
                "check the reward, or use larger batches",
                stacklevel=2,
            )

    @torch.no_grad()
    def _check_range(self, pixels: Tensor, slack: float = 1e-2) -> None:
        if self._range_checked:
            return
        self._range_checked = True
        finite = pixels[pixels.isfinite()]
        if len(finite) and not -slack <= finite.min() <= finite.max() <= 1 + slack:
            raise ValueError(
                f"{type(self.model).__name__}.decode returned pixels in [{finite.min():.3g}, {finite.max():.3g}], expected "
                "[0, 1]; let decode map and clamp them, exactly once"
            )
