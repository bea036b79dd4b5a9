"""The paper's Table 4: staged prompts, with and without training."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from experiments.base import Figure, Row, Table
from experiments.marks import SAMPLES, START, at
from experiments.methods import SD_TARGETS, TINY_TARGETS, staged
from experiments.paper.comparison import Comparison, Plan
from experiments.paper.rates import configured, of_the_board
from experiments.reporting import measurements
from experiments.summary import grouped, mean_of

_TINY = "experiments/configs/tiny_layered.yaml", "experiments/configs/tiny_dcot.yaml"
_HANDS = "experiments/configs/hands.yaml"
_WHOLE, _STAGED = staged(
    "configs/image/tiny_dcot.yaml",
    ("data=WorldPrompts", "data.init_args.batch_size=16", "data.init_args.keep=Layered"),
    _TINY,
    samples=16,
)
_PAPER = (
    ("SD1.4", "15.33", "20.50", "4.76", "33.45"),
    ("SD1.4-DCoT", "16.38", "21.68", "4.83", "39.24"),
    ("RLR w/o DCoT", "18.05", "23.58", "5.27", "43.09"),
    ("RLR-DCoT", "19.45", "25.80", "5.83", "49.88"),
)
BASES = {_WHOLE.name: "base", _STAGED.name: "base, DCoT"}


class Table4(Comparison):
    """The base model and RLR, each with whole prompts and with prompts in stages."""

    name = "table4"
    title = "Table 4: the diffusive chain of thought"
    note = (
        "Each row is evaluated with whole or with staged prompts, as its name says; rewards always use the whole prompt. The half "
        "order term covers the steps of the middle stage only in both runs. Means ± standard errors are over training seeds. In "
        "the setting tiny the prompts are the captions of the built-in world that name a place and a texture, so that all stages "
        "differ, and the estimator is the look-ahead with its learning rate of the board; in sd14 they are the paper's five "
        "prompts of hands."
    )
    published = (Table("Table 4", ("method", "PickScore", "HPSv2", "AES", "ImageReward"), _PAPER),)
    plans: ClassVar[Mapping[str, Plan]] = {
        "tiny": Plan(
            {
                "Tiny": [
                    method.with_overrides("model.init_args.optimization.decay_steps=0") for method in (_WHOLE, _STAGED)
                ]
            },
            TINY_TARGETS,
            _TINY[0],
            samples=960,
            every=320,
            rates=of_the_board("look-ahead RLR"),
        ),
        "sd14": Plan(
            {
                "SD1.4": staged(
                    "configs/image/sd14_dcot_{reward}.yaml",
                    ("data=HandPrompts", "data.init_args.batch_size=10"),
                    (_HANDS, _HANDS),
                    samples=40,
                )
            },
            SD_TARGETS,
            _HANDS,
            samples=8000,
            every=2000,
            rates=configured,
        ),
    }

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        return [self._table(str(reward), group) for (reward,), group in grouped(rows, "reward").items()]

    def _table(self, reward: str, rows: Sequence[Row]) -> Table:
        names = measurements(rows)
        groups = grouped(rows, "method")
        bases = [(name, at(groups.get((method,), []), START)) for method, name in BASES.items()]
        # the base model and its rows are the same in all runs
        lines = [(*self._line(name, rows, names)[:-1], "–") for name, rows in bases]
        lines += [self._line(str(method), at(group, SAMPLES), names) for (method,), group in groups.items()]
        return Table(f"Trained for {reward}", ("method", *names, "runs"), lines)

    @staticmethod
    def _line(name: str, rows: Sequence[Row], names: Sequence[str]) -> tuple[str, ...]:
        return name, *(mean_of(rows, measured, 3) for measured in names), str(len(rows))
