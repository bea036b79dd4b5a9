r"""What a model does on prompts that it was not trained on: reward, exact check and diversity of its samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.evaluation.diversity import diversity
from rlr.evaluation.sampling import paint
from rlr.rewards.base import Reward
from rlr.toy.demo.world import World

Progress = Callable[[int, int], None]
"""Told how many samples of how many are made."""


@dataclass(frozen=True)
class Evaluation:
    r"""Samples of :math:`N` prompts, :math:`S` of each, and what was measured on them.

    Args:
        prompts: The :math:`N` prompts.
        pixels: The samples in [0, 1], with shape :math:`(N, S, 3, H, W)`, or :math:`(N, S, F, 3, H, W)` for clips.
        scores: Measurements by name, each with shape :math:`(N, S)` or :math:`(N, 1)`; NaN where a prompt does not
            make the claim.
    """

    prompts: Sequence[str]
    pixels: Tensor
    scores: dict[str, Tensor]

    def mean(self, name: str) -> float:
        """Returns the mean of a measurement over the samples that have it."""
        return self.scores[name].nanmean().item()


@torch.no_grad()
def evaluate(
    world: World,
    chain: Chain,
    reward: Reward,
    prompts: Sequence[str],
    samples: int = 2,
    seed: int = 0,
    batch: int = 60,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    r"""Samples every prompt on noises that depend on ``seed``, prompt and sample only, and measures the samples.

    Two models evaluated with the same seed therefore see the same noise, and differences are paired. For the same reason
    the reward must not draw frames of clips: called on a whole clip, a :class:`~rlr.rewards.FrameReward` takes the mean
    over its frames, of which updates draw some, so that no frame's luck is in the difference.

    Args:
        world: What the prompts are of.
        chain: The model with its sampler.
        reward: The reward.
        prompts: The :math:`N` prompts, captions of that world.
        samples: The number :math:`S` of samples of each prompt; diversity needs two.
        seed: The seed of all noises.
        batch: How many samples are made at once.
        progress: Told of every batch.
    """
    lines = [prompt for prompt in prompts for _ in range(samples)]
    pixels, rewards = [], []
    for painted in paint(chain, prompts, samples, seed, batch):
        pixels.append(painted.pixels)
        rewards.append(reward(painted.pixels, painted.prompts).float().cpu())
        progress(painted.rows[-1] + 1, len(lines))
    made = torch.cat(pixels).float().cpu()
    scores = {"reward": torch.cat(rewards), **world.check(made, lines)}
    made = made.unflatten(0, (len(prompts), samples))
    folded = {name: values.unflatten(0, (len(prompts), samples)) for name, values in scores.items()}
    if samples > 1:
        folded["diversity"] = diversity(made)[:, None]
    return Evaluation(prompts, made, folded)
