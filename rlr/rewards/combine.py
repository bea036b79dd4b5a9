r"""Several rewards as one.

.. math:: R(x, c) = \sum_i w_i \, z_i(R_i(x, c))

with weights :math:`w_i` and a scaling :math:`z_i` that brings rewards of unlike units to one scale.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from rlr.distributed import total
from rlr.rewards.base import FrameSelection, Reward, Scores

LOGGED = ("mean", "std")
"""Log names under ``reward/`` that a part cannot have."""


class Scaling(nn.Module, ABC):
    """Brings the scores of one reward to a common scale; its statistics are buffers.

    To scale changes no statistic: all scores of one update must have the same scale, since estimators subtract them.
    """

    @abstractmethod
    def forward(self, scores: Tensor) -> Tensor:
        r"""Returns the scaled scores, with the shape of ``scores``, :math:`(B)`."""

    def update_statistics(self, scores: Tensor, provisional: bool = False) -> None:
        """Updates the statistics from this rank's scores, see :meth:`~rlr.rewards.base.Reward.update_statistics`."""


class AsIs(Scaling):
    """Changes nothing."""

    def forward(self, scores: Tensor) -> Tensor:
        return scores


class RunningZScore(Scaling):
    r""":math:`(r - \mu) / \sigma` with the mean and standard deviation of the scores of the updates so far.

    They are over all ranks, have no gradient, leave out scores that are not finite, and change between updates alone.
    Before there are any, :math:`\mu = 0` and :math:`\sigma = 1`; a training run begins with those of its first rollout.

    Args:
        horizon: The number of the latest scores to remember, roughly: older ones fade.
        floor: The least :math:`\sigma`.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, horizon: int = 4096, floor: float = 1e-6) -> None:
        super().__init__()
        self.horizon, self.floor = horizon, floor
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))

    def forward(self, scores: Tensor) -> Tensor:
        # a single score, or equal ones, have no scale
        sigma = self.variance.sqrt() if self.variance > self.floor**2 else torch.ones_like(self.variance)
        return (scores - self.mean.to(scores)) / sigma.to(scores)

    @torch.no_grad()
    def update_statistics(self, scores: Tensor, provisional: bool = False) -> None:
        new = scores[scores.isfinite()].to(self.mean) - self.mean
        n, first, second = total(torch.stack([new.new_tensor(len(new)), new.sum(), new.square().sum()]))
        if n == 0:
            return
        old = self.count.clamp(max=self.horizon)
        shift = first / (old + n)
        spread = old * self.variance if old > 0 else 0
        self.variance.copy_((spread + second) / (old + n) - shift.square())
        self.mean.add_(shift)
        # provisional statistics have no weight: the next ones replace them
        self.count.add_(0 if provisional else n)


class Combine(Reward):
    r"""A weighted sum of rewards.

    It is differentiable where all of its parts are; with a part that is not, there is no gradient at all, rather than
    one of a different objective. Parts that draw frames of videos at random draw the same ones.

    Args:
        rewards: The parts, by the names that logs show.
        weights: The weight of each part, negative for one of which lower is better.
        scaling: How to bring the parts to one scale; each gets a copy.

    Raises:
        ValueError: If the names differ or will not do, a weight has the wrong sign, or some parts score images and
            others videos.
    """

    def __init__(
        self, rewards: Mapping[str, Reward], weights: Mapping[str, float], scaling: Scaling | None = None
    ) -> None:
        super().__init__()
        _check(rewards, weights)
        # in two lists and not by name: a name may hold a dot
        self.names, self.weights = list(rewards), [float(weights[name]) for name in rewards]
        self.rewards = nn.ModuleList(rewards.values())
        self.scalings = nn.ModuleList(deepcopy(scaling or AsIs()) for _ in rewards)
        self.differentiable = all(reward.differentiable for reward in rewards.values())
        self.supports_images = all(reward.supports_images for reward in rewards.values())
        self.supports_video = all(reward.supports_video for reward in rewards.values())

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.score(samples, prompts).values

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Scores:
        r"""Returns the sum; its parts are each reward's scores by name, and after a slash by label, scale and own part."""
        return self._sum(reward.score(samples, prompts) for reward in self._parts)

    def select_frames(self, frames: int, seed: int) -> FrameSelection:
        selections = [part.select_frames(frames, seed) for part in self._parts]
        union = _union([selection.frames for selection in selections])
        return FrameSelection(
            union,
            lambda samples, prompts: self._sum(
                selection.score(_among(samples, union, selection.frames), prompts) for selection in selections
            ),
        )

    def _sum(self, each: Iterable[Scores]) -> Scores:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.differentiable):
            scores = list(each)
            values = torch.stack(list(self._terms([one.values for one in scores]))).sum(0)
        return Scores(values, dict(self._details(scores)))

    def _details(self, scores: Sequence[Scores]) -> Iterator[tuple[str, Tensor]]:
        for (name, part), score in zip(self._named(), scores, strict=True):
            values = score.values.detach()
            yield name, values
            yield from ((f"{name}/{key}", v) for key, v in {**part.format(values), **score.parts}.items())

    def update_statistics(self, scores: Scores, provisional: bool = False) -> None:
        for (name, part), scaling in zip(self._named(), self._scalings, strict=True):
            values = scores.parts[name]
            scaling.update_statistics(values, provisional)
            part.update_statistics(
                Scores(values, _within(scores.parts, f"{name}/"), part.higher_is_better), provisional
            )

    def statistics(self) -> dict[str, Tensor]:
        own = self.scalings.state_dict(prefix="scalings.")
        inner = {f"{k}.{name}": v for k, part in enumerate(self._parts) for name, v in part.statistics().items()}
        return {name: value.clone() for name, value in (own | inner).items()}

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        found, own = _within(statistics, "scalings."), self.scalings.state_dict()
        if found.keys() != own.keys():
            raise ValueError(
                f"the checkpoint holds the scaling statistics {sorted(found)} of Combine, expected {sorted(own)}; resume "
                "with the config and the version that wrote it"
            )
        self.scalings.load_state_dict(found)
        for k, part in enumerate(self._parts):
            part.load_statistics(_within(statistics, f"{k}."))

    @property
    def _parts(self) -> list[Reward]:
        return cast(list[Reward], list(self.rewards))

    @property
    def _scalings(self) -> list[Scaling]:
        return cast(list[Scaling], list(self.scalings))

    def _named(self) -> Iterator[tuple[str, Reward]]:
        return zip(self.names, self._parts, strict=True)

    def _terms(self, scores: list[Tensor]) -> Iterator[Tensor]:
        for weight, scaling, score in zip(self.weights, self._scalings, scores, strict=True):
            yield weight * scaling(score)


def _union(chosen: Sequence[Sequence[int] | None]) -> list[int] | None:
    """Returns the frames that any of the parts asks for, in order; None, which is all, if one of them does."""
    if any(frames is None for frames in chosen):
        return None
    return sorted({frame for frames in chosen for frame in frames or ()})


def _among(samples: Tensor, union: list[int] | None, frames: Sequence[int] | None) -> Tensor:
    """Returns the pixels of ``frames`` from those of ``union``."""
    if frames is None or frames == union:
        return samples
    return samples[:, list(frames) if union is None else [union.index(frame) for frame in frames]]


def _within(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _check(rewards: Mapping[str, Reward], weights: Mapping[str, float]) -> None:
    if not rewards or rewards.keys() != weights.keys():
        raise ValueError(
            f"Combine got the rewards {sorted(rewards)} and weights for {sorted(weights)}; set a weight for every reward "
            "under the same name"
        )
    for name in rewards:
        if "/" in name or name in LOGGED:
            raise ValueError(
                f"the name {name} of a reward in Combine has another meaning in logs; choose a name without / that is "
                f"not {' or '.join(LOGGED)}"
            )
    if not any(all(getattr(r, kind) for r in rewards.values()) for kind in ("supports_images", "supports_video")):
        raise ValueError(
            f"of the rewards {sorted(rewards)} in Combine some score images and others videos; wrap those of images in "
            "FrameReward"
        )
    for name, reward in rewards.items():
        if not reward.higher_is_better and weights[name] > 0:
            raise ValueError(
                f"of {name} lower is better, and its weight in Combine is {weights[name]}; make it negative"
            )
