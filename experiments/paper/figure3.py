"""The paper's Figure 3: truncated backpropagation in long runs."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from experiments.base import Figure, Row, Table
from experiments.board.methods import TRUNCATIONS
from experiments.marks import SAMPLES
from experiments.methods import SD_TARGETS, Method, truncations
from experiments.paper.comparison import BoardComparison, Plan
from experiments.paper.rates import configured
from experiments.reporting import curves, details, measurements
from experiments.summary import grouped

_SD14 = Method("K", "configs/image/sd14_draft1_pickscore.yaml", samples=32)
# backpropagation through several steps needs the memory of their graph: recompute it in the backward pass
_DEEP = _SD14.with_overrides("model.init_args.memory.checkpoint_steps=true")


class Figure3(BoardComparison):
    """Backpropagation through the last K steps, for several K, in longer runs."""

    name = "figure3"
    title = "Figure 3: truncated backpropagation"
    note = (
        "Backpropagation through the last K steps of the chain. In the setting tiny the runs are those of track A of the board, "
        "all with the learning rate that was best for K = 2 (DRaFT-2). Means over seeds, bands from the smallest to the largest. "
        "In a collapse the diversity or the exact check falls while the reward rises."
    )
    board = (TRUNCATIONS[0], "DRaFT-2", *TRUNCATIONS[1:])
    plans: ClassVar[Mapping[str, Plan]] = {
        "sd14": Plan(
            {
                "SD1.4": truncations(
                    _DEEP, ("1", "5", "10", "25", "AllSteps"), ("K = 1", "K = 5", "K = 10", "K = 25", "K = 50, all")
                )
            },
            SD_TARGETS[:1],
            "experiments/configs/sd14.yaml",
            samples=12800,
            every=1600,
            rates=configured,
        ),
    }

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        shown: list[Table | Figure] = []
        for (model, prompts, reward), group in grouped(rows, "model", "prompts", "reward").items():
            ys = [(name, name) for name in measurements(group)]
            shown.append(curves(group, [("update", "updates")], ys, f"{model} trained for {reward}, on {prompts}"))
        return [*shown, *details(rows, SAMPLES, "At the end")]
