"""The paper's Figure 4: the reward of each method during training."""

from collections.abc import Sequence
from typing import ClassVar

from experiments.base import Figure, Row, Table
from experiments.paper.table2 import Table2
from experiments.reporting import curves
from experiments.summary import grouped

GOLD = "ExactCheck"


class Figure4(Table2):
    """The runs of Table 2 during training, against their cost."""

    name = "figure4"
    title = "Figure 4: sample efficiency"
    note = (
        "The runs of Table 2 on held-out prompts: means over seeds, bands from the smallest to the largest. The upper row has the "
        "reward of the training, the lower row the exact check of the image, which is not used in training. If the first rises "
        "and the second falls, the model exploits the reward."
    )
    published: ClassVar[Sequence[Table]] = ()

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        xs = (("reward_calls", "reward calls"), ("step_seconds", "seconds of training"))
        figures: list[Table | Figure] = []
        for (model, prompts, reward), group in grouped(rows, "model", "prompts", "reward").items():
            gold = [(GOLD, "exact check")] if any(GOLD in row for row in group) else []
            ys = [("proxy", str(reward)), *gold]
            figures.append(curves(group, xs, ys, f"{model} trained for {reward}, on {prompts}"))
        return figures
