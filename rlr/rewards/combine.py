r"""Several rewards as one.

.. math:: R(x, c) = \sum_i w_i \, z_i(R_i(x, c))

with weights :math:`w_i` and a scaling :math:`z_i` that brings rewards of unlike units to one scale.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, distributed, nn

from rlr.rewards.base import Excerpt, Reward

LOGGED = ("mean", "std")
"""What logs hold of the whole under ``reward/``, beside its parts."""


class Scaling(nn.Module, ABC):
    """Brings the scores of one reward to a common scale; what it learns is kept in buffers.

    To scale teaches it nothing: all scores of one update must have the same scale, for estimators subtract them.
    """

    @abstractmethod
    def forward(self, scores: Tensor) -> Tensor:
        r"""Returns the scaled scores, with the shape of ``scores``, :math:`(B)`."""

    def observe(self, scores: Tensor) -> None:
        """Takes note of this rank's scores of a roll-out, see :meth:`~rlr.rewards.base.Reward.observe`."""

    def settle(self, provisional: bool = False) -> None:
        """Learns from what it has observed, see :meth:`~rlr.rewards.base.Reward.settle`."""


class AsIs(Scaling):
    """Changes nothing."""

    def forward(self, scores: Tensor) -> Tensor:
        return scores


class RunningZScore(Scaling):
    r""":math:`(r - \mu) / \sigma` with the mean and standard deviation of the scores of the updates so far.

    They are over all ranks, have no gradient, leave out scores that are not finite, and change between updates alone.
    Before there are any, :math:`\mu = 0` and :math:`\sigma = 1`; a training run begins with those of its first roll-out.

    Args:
        horizon: How many of the latest scores to remember, roughly: older ones fade.
        floor: The least :math:`\sigma`.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor
    pending: Tensor

    def __init__(self, horizon: int = 4096, floor: float = 1e-6) -> None:
        super().__init__()
        self.horizon, self.floor = horizon, floor
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))
        # of what is observed but not yet settled, of all ranks: number, sum and sum of squares about the present mean
        self.register_buffer("pending", torch.zeros(3, dtype=torch.float64))

    def forward(self, scores: Tensor) -> Tensor:
        # a single score, or equal ones, tell no scale
        sigma = self.variance.sqrt() if self.variance > self.floor**2 else torch.ones_like(self.variance)
        return (scores - self.mean.to(scores)) / sigma.to(scores)

    @torch.no_grad()
    def observe(self, scores: Tensor) -> None:
        new = scores[scores.isfinite()].to(self.mean) - self.mean
        moments = torch.stack([new.new_tensor(len(new)), new.sum(), new.square().sum()])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(moments)
        self.pending.add_(moments)

    @torch.no_grad()
    def settle(self, provisional: bool = False) -> None:
        n, first, second = self.pending.clone()
        if n == 0:
            return
        old = self.count.clamp(max=self.horizon)
        shift = first / (old + n)
        spread = old * self.variance if old > 0 else 0
        self.variance.copy_((spread + second) / (old + n) - shift.square())
        self.mean.add_(shift)
        # of no weight, they are replaced by the next
        self.count.add_(0 if provisional else n)
        self.pending.zero_()


class Combine(Reward):
    r"""A weighted sum of rewards.

    It is differentiable where all of its parts are; with a part that is not, there is no gradient at all, rather than
    one of a different objective. Parts that draw frames of clips at random draw the same ones.

    Args:
        rewards: The parts, by the names that logs show.
        weights: The weight of each part, negative for one of which lower is better.
        scaling: How to bring the parts to one scale; each gets a copy.

    Raises:
        ValueError: If the names differ or will not do, a weight has the wrong sign, or some parts read pictures and
            others clips.
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
        self.reads_pictures = all(reward.reads_pictures for reward in rewards.values())
        self.reads_clips = all(reward.reads_clips for reward in rewards.values())
        self._scores: dict[str, Tensor] = {}

    @property
    def parts(self) -> dict[str, Tensor]:
        """The scores of each part in the last call, as the part gave them; after a slash its label, scales and own parts."""
        return {**self._scores, **dict(self._details())}

    def _details(self) -> Iterator[tuple[str, Tensor]]:
        for name, part in self._named():
            if name in self._scores:
                yield from ((f"{name}/{key}", v) for key, v in {**part.rows(self._scores[name]), **part.parts}.items())

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._sum(reward(samples, prompts) for reward in self.rewards)

    def excerpt(self, frames: int, seed: int) -> Excerpt:
        excerpts = [part.excerpt(frames, seed) for part in self._parts]
        union = _union([excerpt.frames for excerpt in excerpts])
        return Excerpt(
            union,
            lambda samples, prompts: self._sum(
                excerpt.score(_among(samples, union, excerpt.frames), prompts) for excerpt in excerpts
            ),
        )

    def _sum(self, each: Iterable[Tensor]) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.differentiable):
            scores = list(each)
            self._scores = {name: score.detach() for name, score in zip(self.names, scores, strict=True)}
            return torch.stack(list(self._terms(scores))).sum(0)

    def observe(self, parts: Mapping[str, Tensor]) -> None:
        for (name, part), scaling in zip(self._named(), self._scalings, strict=True):
            scaling.observe(parts[name])
            part.observe(_within(parts, f"{name}/"))

    def settle(self, provisional: bool = False) -> None:
        for scaling in self._scalings:
            scaling.settle(provisional)
        for part in self._parts:
            part.settle(provisional)

    def memory(self) -> dict[str, Tensor]:
        own = self.scalings.state_dict(prefix="scalings.")
        inner = {f"{k}.{name}": v for k, part in enumerate(self._parts) for name, v in part.memory().items()}
        return {name: value.clone() for name, value in (own | inner).items()}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        found, own = _within(memory, "scalings."), self.scalings.state_dict()
        if found.keys() != own.keys():
            raise ValueError(
                f"the checkpoint holds {sorted(found)} of the scales of Combine, and {sorted(own)} are asked for; resume with "
                "the config and the version that wrote it"
            )
        self.scalings.load_state_dict(found)
        for k, part in enumerate(self._parts):
            part.recall(_within(memory, f"{k}."))

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


def _within(memory: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in memory.items() if name.startswith(prefix)}


def _check(rewards: Mapping[str, Reward], weights: Mapping[str, float]) -> None:
    if not rewards or rewards.keys() != weights.keys():
        raise ValueError(
            f"Combine got the rewards {sorted(rewards)} and weights for {sorted(weights)}; give every reward a weight "
            "under the same name"
        )
    for name in rewards:
        if "/" in name or name in LOGGED:
            raise ValueError(
                f"the reward {name} in Combine has a name that logs need for something else; give it one without / that is "
                f"not {' or '.join(LOGGED)}"
            )
    if not any(all(getattr(r, kind) for r in rewards.values()) for kind in ("reads_pictures", "reads_clips")):
        raise ValueError(
            f"of the rewards {sorted(rewards)} in Combine some read pictures and others clips; wrap those of pictures in "
            "FrameReward"
        )
    for name, reward in rewards.items():
        if not reward.higher_is_better and weights[name] > 0:
            raise ValueError(
                f"of {name} lower is better, and its weight in Combine is {weights[name]}; make it negative"
            )
