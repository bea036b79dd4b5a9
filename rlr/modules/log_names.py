"""The names under which logs show scores."""

from collections.abc import Mapping

from torch import Tensor

from rlr.rewards.base import Reward, Scores


def score_means(reward: Reward, scores: Scores) -> dict[str, Tensor]:
    """Returns the means of scores under the reward's label, on its published scales, and of their parts.

    Args:
        reward: The reward.
        scores: Its scores.
    """
    values: Mapping[str, Tensor] = {**reward.format(scores.values), **scores.parts}
    return {name.replace(" ", "_"): value.mean() for name, value in values.items()}
