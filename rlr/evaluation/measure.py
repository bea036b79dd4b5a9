"""Scores of a model's samples."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.evaluation.diversity import Diversity, spread
from rlr.evaluation.features import described
from rlr.evaluation.sampling import paint
from rlr.rewards.base import Reward
from rlr.rewards.combine import Combine
from rlr.rewards.frames import FrameReward


def measure(
    chain: Chain,
    rewards: Sequence[Reward],
    prompts: Sequence[str],
    samples: int = 1,
    seed: int = 0,
    batch: int = 8,
    diversity: Diversity | None = None,
    rank: int = 0,
    world: int = 1,
) -> dict[str, Tensor]:
    r"""Samples every prompt of this rank and scores the samples; no sample is kept.

    Args:
        chain: The model with its sampler.
        rewards: The rewards, each with a label of its own.
        prompts: The :math:`N` prompts.
        samples: The number :math:`S` of samples of each.
        seed: Decides all noises; see :mod:`rlr.evaluation.sampling`.
        batch: How many samples are made at once.
        diversity: Whether and how to measure diversity, too.
        rank: The rank :math:`r`.
        world: The number :math:`W` of ranks.

    Returns:
        By label, the scores of prompts :math:`r + jW` in float32 on the CPU, with shape :math:`(n, S)`; that of
        diversity has shape :math:`(n, 1)`.
    """
    count = len(range(rank, len(prompts), world))
    found: dict[str, list[Tensor]] = {reward.label: [] for reward in rewards}
    features: list[Tensor] = []
    for painted in paint(chain, prompts, samples, seed, batch, rank, world):
        for reward in rewards:
            found[reward.label].append(measure_pixels(reward, painted.pixels, painted.prompts))
        if diversity:
            features.append(described(diversity.features, painted.pixels).float().cpu())
    scores = {
        label: torch.cat([torch.empty(0, dtype=torch.float32), *values]).view(count, samples)
        for label, values in found.items()
    }
    if diversity:
        rows = torch.cat(features).unflatten(0, (count, samples)) if count else torch.empty(0, samples, 1)
        scores[diversity.label] = spread(rows)[:, None]
    return scores


def measure_pixels(reward: Reward, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
    r"""Returns the scores of pixels in [0, 1] in float32 on the CPU, with shape :math:`(B)`.

    Raises:
        ValueError: If the reward is not one number a sample.
    """
    with torch.inference_mode():
        scores = reward(pixels, prompts)
    if scores.shape != (len(prompts),):
        raise ValueError(
            f"the reward {reward.label} returned the shape {tuple(scores.shape)} for {len(prompts)} samples; "
            f"return one score a sample, ({len(prompts)},)"
        )
    return scores.clone().float().cpu()


def parts(reward: Reward) -> list[Reward]:
    """Returns the rewards that a combination is made of, since its own scale may change during training.

    Those of a combination on frames of clips are each on these frames.
    """
    if isinstance(reward, FrameReward) and isinstance(reward.reward, Combine):
        return [FrameReward(part, reward.choice) for part in parts(reward.reward)]
    if not isinstance(reward, Combine):
        return [reward]
    return [part for member in reward.rewards for part in parts(member)]  # type: ignore[arg-type]


def distinct(rewards: Sequence[Reward]) -> list[Reward]:
    """Returns the rewards if each has a label of its own.

    Raises:
        ValueError: If there is none, or two have the same label.
    """
    labels = [reward.label for reward in rewards]
    if not labels:
        raise ValueError("an evaluation needs a reward, and the list of rewards is empty; name one, or leave it out")
    for label in _repeated(labels):
        raise ValueError(
            f"two rewards of one evaluation are called {label}, and a table could not tell them apart; "
            "evaluate them in two callbacks with a folder each"
        )
    return list(rewards)


def _repeated(labels: Sequence[str]) -> Iterator[str]:
    return (label for k, label in enumerate(labels) if label in labels[:k])
