r"""How well the learned rewards separate right from wrong images, which bounds what training for them can gain.

For each learned reward :math:`R` the measurement has the mean on real renders, which the exact check finds right, and on samples of
the base model; on the latter the share of pairs of a right and a wrong sample of one caption in which the right one has the larger
reward,

.. math:: P(R(x) > R(y) \mid x \text{ right}, y \text{ wrong, one caption}),

which is 1/2 for a reward that is independent of the check, and the share of the variance of the check within captions that a line
in :math:`R` explains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.base import Experiment, Figure, Row, Run, Table
from experiments.board.prompts import BoardPrompts
from experiments.settings import TINY, Setting
from rlr.chain import Chain
from rlr.evaluation.samples import SampleSet
from rlr.rewards import Reward
from rlr.samplers import DDIM
from rlr.toy.data.scenes import draw_images
from rlr.toy.models import Tiny
from rlr.toy.rewards import ExactCheck, TinyHPSv2, TinyPickScore

STEPS, CAPTIONS, SAMPLES, SEED, BATCH = 10, 96, 8, 0, 64
REWARDS: Mapping[str, tuple[Callable[[], Reward], float]] = {
    "TinyPickScore": (TinyPickScore, 1.0),
    "TinyHPSv2 x100": (TinyHPSv2, 100.0),
}
"""Each reward with its factor to the scale of the tables."""
IMAGES = RENDERS, RIGHT, WRONG = "real renders", "right samples", "wrong samples"
PAIRS, EXPLAINED = "right above wrong", "variance explained"


@dataclass(frozen=True)
class Ceiling:
    """The learned rewards and the exact check, on real renders and on samples of the base model.

    Args:
        captions: The number of captions.
        samples: The number of samples of each.
    """

    captions: int = CAPTIONS
    samples: int = SAMPLES

    @property
    def settings(self) -> str:
        """The settings as text."""
        size = f"{self.captions} captions of the board x {self.samples} samples"
        return f"{size}, DDIM, T = {STEPS}, eta = 1, no guidance, seed {SEED}"

    @torch.no_grad()
    def rows(self) -> list[Row]:
        """Returns the rows of each reward: means of groups, and how well the reward separates right from wrong samples."""
        captions = list(BoardPrompts(self.captions).captions)
        renders = draw_images(captions, SEED).float() / 255
        batches = list(SampleSet(captions, self.samples, SEED, BATCH).batches(Chain(Tiny(), DDIM(STEPS))))
        prompts = [prompt for batch in batches for prompt in batch.prompts]
        pixels = torch.cat([batch.pixels for batch in batches])
        right = self._by_caption(ExactCheck()(pixels, prompts)) == 1
        return [
            {"reward": name, **row}
            for name, (make, factor) in REWARDS.items()
            for reward in [make()]
            for row in (
                group(RENDERS, factor * reward(renders, captions)),
                *statistics(self._by_caption(factor * reward(pixels, prompts)), right),
            )
        ]

    def _by_caption(self, values: Tensor) -> Tensor:
        return values.double().view(self.captions, self.samples)


def group(name: str, values: Tensor) -> Row:
    """Returns the row of a group of images: the mean, and their number."""
    return {"group": name, "value": values.double().mean().item(), "number": values.numel()}


def statistics(reward: Tensor, right: Tensor) -> list[Row]:
    r"""Returns the rows of samples.

    Args:
        reward: The reward of each sample, :math:`(N, S)`, for captions and samples.
        right: Whether the exact check finds it right, likewise.
    """
    both = right.unsqueeze(2) & ~right.unsqueeze(1)
    above = (reward.unsqueeze(2) - reward.unsqueeze(1)).sign().add(1).div(2)
    return [
        group(RIGHT, reward[right]),
        group(WRONG, reward[~right]),
        group(PAIRS, above[both]),
        {"group": EXPLAINED, "value": explained(reward, right.double()), "number": right.numel()},
    ]


def explained(reward: Tensor, check: Tensor) -> float:
    """Returns the share of the variance of the check within captions that a line in the reward explains."""
    r, c = (values - values.mean(1, keepdim=True) for values in (reward, check))
    return ((r * c).sum().square() / (r.square().sum() * c.square().sum())).item()


class CeilingExperiment(Experiment):
    """How well the learned rewards separate right from wrong images."""

    name = "ceiling"
    title = "How well the learned rewards separate right from wrong images"
    note = (
        "The base model on the captions of the board, and a real render of each caption, which the exact check finds right. Pairs "
        "are those of a right and a wrong sample of one caption: 50 % is chance. The variance explained is that of the "
        "check within captions, by a line in the reward."
    )

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        """Returns the run; the seeds have no effect, because the samples have their own."""
        if setting.gpu:
            raise ValueError(f"{self.name} is measured for the setting {TINY.name} alone")
        measure = Ceiling()
        return [Run({"model": "Tiny"}, measure.settings, measure.rows)]

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        found = {(row["reward"], row["group"]): row for row in rows}
        head = ("reward", *(f"mean of {kind}" for kind in IMAGES), PAIRS, EXPLAINED)
        lines = [
            (
                str(name),
                *(f"{float(found[name, kind]['value']):.4g}" for kind in IMAGES),
                *(f"{float(found[name, kind]['value']):.1%}" for kind in (PAIRS, EXPLAINED)),
            )
            for name in dict.fromkeys(row["reward"] for row in rows)
        ]
        # the numbers are those of every reward
        numbers = {str(row["group"]): f"{float(row['number']):g}" for row in rows if row["group"] != EXPLAINED}
        return [
            Table("Rewards of right and wrong images", head, lines),
            Table(
                "Numbers of images, and of pairs of a right and a wrong one", ("of", "number"), list(numbers.items())
            ),
        ]
