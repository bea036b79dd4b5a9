r"""What a model does on prompts that it was not trained on: reward, exact check and diversity of its samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.evaluation.diversity import diversity
from rlr.evaluation.sampling import paint
from rlr.rewards.base import Reward
from rlr.world.caption import parse
from rlr.world.checker import check

Progress = Callable[[int, int], None]
"""Told how many samples of how many are made."""


@dataclass(frozen=True)
class Evaluation:
    r"""Samples of :math:`N` prompts, :math:`S` of each, and what was measured on them.

    Args:
        prompts: The :math:`N` prompts.
        pixels: The samples in [0, 1], with shape :math:`(N, S, 3, H, W)`.
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
    chain: Chain,
    reward: Reward,
    prompts: Sequence[str],
    samples: int = 2,
    seed: int = 0,
    batch: int = 60,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    r"""Samples every prompt on noises that depend on ``seed``, prompt and sample only, and measures the samples.

    Two models evaluated with the same seed therefore see the same noise, and differences are paired.

    Args:
        chain: The model with its sampler.
        reward: The reward.
        prompts: The :math:`N` prompts, captions of :mod:`rlr.world`.
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
    images = torch.cat(pixels).float().cpu()
    scores = {"reward": torch.cat(rewards), **exact_check(images, lines)}
    images = images.unflatten(0, (len(prompts), samples))
    folded = {name: values.unflatten(0, (len(prompts), samples)) for name, values in scores.items()}
    if samples > 1:
        folded["diversity"] = diversity(images)[:, None]
    return Evaluation(prompts, images, folded)


def exact_check(pixels: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Returns the claims of :func:`rlr.world.checker.check`; ``novel`` repeats ``all`` for pairs never trained on."""
    specs = [parse(prompt) for prompt in prompts]
    checks = check(pixels, specs)
    new = torch.tensor([spec.novel for spec in specs])
    return {**checks, "novel": checks["all"].where(new, torch.nan)}
