"""The paper's Table 5: RLR without its parts; and the look-ahead with its likelihood-ratio half."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from experiments.base import Figure, Row, Table
from experiments.board.methods import ABLATIONS, RATIOS
from experiments.marks import SAMPLES
from experiments.methods import SD_TARGETS, ablations, stable_diffusion
from experiments.paper.comparison import BoardComparison, Plan
from experiments.paper.rates import configured
from experiments.reporting import details, overview

_PAPER = (
    ("RLR w/o HO and ZO (V1)", "18.43", "23.66", "5.78", "60.07"),
    ("RLR w/o ZO (V2)", "19.28", "26.70", "5.92", "63.85"),
    ("RLR w/o HO (V3)", "20.11", "27.07", "6.23", "68.35"),
    ("RLR", "21.38", "29.22", "6.65", "76.55"),
)
# the paper trains on the prompts of HPD v2 here
_SD14 = stable_diffusion("sd14")[2].with_overrides("data=HPDv2", "data.init_args.batch_size=8")


class Table5(BoardComparison):
    """RLR complete, and without half order, zeroth order, or both."""

    name = "table5"
    title = "Table 5: RLR without its parts"
    note = (
        "Each method has the same number of samples, and in the setting tiny the learning rate that was selected for RLR complete. "
        "There, the look-ahead follows: without it (DRaFT-2, at a rate of its own), with its likelihood-ratio "
        "half at the weights 0.1 and 1, and as configured, without that half; these three have the same learning rate. "
        "Means ± standard errors are over training seeds."
    )
    published = (Table("Table 5 (SD1.4, HPD v2)", ("method", "PickScore", "HPSv2", "AES", "ImageReward"), _PAPER),)
    board = (*ABLATIONS, "RLR (paper)", "DRaFT-2", *RATIOS, "look-ahead RLR")
    plans: ClassVar[Mapping[str, Plan]] = {
        "sd14": Plan(
            {"SD1.4": (*ablations(_SD14), _SD14)},
            SD_TARGETS,
            "experiments/configs/sd14.yaml",
            samples=6400,
            every=3200,
            rates=configured,
        ),
    }

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        return [overview(rows, SAMPLES, "At equal samples"), *details(rows, SAMPLES, "At equal samples")]
