"""What logs show of a reward's scores."""

from collections.abc import Mapping

from torch import Tensor

from rlr.rewards.base import Reward


def shown(reward: Reward, scores: Tensor, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Returns means under the reward's label, version included, on its published scales, and of its parts.

    Args:
        reward: The reward.
        scores: Its scores, as it gives them, with shape :math:`(B)`.
        parts: Its parts in the call that gave them.
    """
    rows = {**reward.rows(scores), **parts}
    return {name.replace(" ", "_"): values.mean() for name, values in rows.items()}
