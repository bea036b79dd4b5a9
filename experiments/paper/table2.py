"""The paper's Table 2: rewards of images of unseen prompts after training with each method."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from experiments.base import Figure, Row, Table
from experiments.board.held_out_curves import at_equal_seconds
from experiments.marks import SAMPLES, SECONDS
from experiments.methods import SD_TARGETS, stable_diffusion
from experiments.paper.comparison import BoardComparison, Plan
from experiments.paper.rates import configured
from experiments.reporting import details, overview

_REWARDS = ("PickScore", "HPSv2", "AES", "ImageReward")
_HEAD = ("model", "method", *(f"{data}: {reward}" for data in ("Pick-a-Pic", "HPD v2") for reward in _REWARDS))
_PAPER = (
    ("SD1.4", "base", "16.24", "21.03", "4.48", "32.74", "16.19", "22.08", "4.42", "32.90"),
    ("SD1.4", "DDPO", "17.56", "23.15", "5.47", "49.33", "17.53", "22.79", "5.52", "52.06"),
    ("SD1.4", "AlignProp", "18.08", "26.64", "5.91", "65.07", "19.17", "27.02", "6.02", "67.18"),
    ("SD1.4", "RLR", "20.14", "28.57", "6.53", "75.65", "21.38", "29.22", "6.65", "76.55"),
    ("SD2.1", "base", "16.37", "22.14", "4.53", "35.40", "16.25", "23.32", "4.57", "36.03"),
    ("SD2.1", "DDPO", "17.70", "24.55", "5.58", "52.48", "17.43", "24.56", "5.62", "52.85"),
    ("SD2.1", "AlignProp", "19.23", "27.20", "6.07", "68.09", "21.60", "27.40", "6.11", "72.62"),
    ("SD2.1", "RLR", "22.58", "30.11", "6.76", "77.26", "23.22", "30.98", "6.94", "83.07"),
)


class Table2(BoardComparison):
    """Base, DDPO, truncated backpropagation and RLR, at equal samples and at equal seconds."""

    name = "table2"
    title = "Table 2: rewards on unseen prompts"
    note = (
        "Every run is evaluated before, during and after training on the same held-out prompts and noises; means ± standard errors "
        "are over training seeds. Samples are rollouts of the current weights; the additional pairs of rollouts of zeroth order "
        "and the predictions of the look-ahead count as reward calls and as seconds. In the setting tiny the runs are those of "
        "track A of the board (board_a), each with the learning rate of its tuning. Equal seconds are the CPU seconds of the "
        "training steps of the shortest run; values between two evaluations are interpolated linearly."
    )
    published: ClassVar[Sequence[Table]] = (Table("Table 2", _HEAD, _PAPER),)
    board = ("DDPO", "AlignProp", "DRaFT-2", "RLR (paper)", "half-order RLR", "look-ahead RLR")
    plans: ClassVar[Mapping[str, Plan]] = {
        "sd14": Plan(
            {"SD1.4": stable_diffusion("sd14"), "SD2.1": stable_diffusion("sd21")},
            SD_TARGETS,
            "experiments/configs/sd14.yaml",
            samples=6400,
            every=1600,
            rates=configured,
        ),
    }

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        rows = [*rows, *at_equal_seconds(rows)]
        budgets = ((SAMPLES, "At equal samples"), (SECONDS, "At equal seconds"))
        return [
            table for mark, title in budgets for table in (overview(rows, mark, title), *details(rows, mark, title))
        ]
