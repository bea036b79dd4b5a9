"""The learning rate of each method: the same number of tries for each method, on separate prompts."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from experiments.base import Experiment, Figure, Row, Run, Table
from experiments.command import Command
from experiments.methods import RATES, RLR, TINY_METHODS, TINY_TARGETS, Method, Target, ablations
from experiments.results import Results
from experiments.settings import Setting
from experiments.summary import best, grouped, mean_of, numbers
from experiments.training import Training

SAMPLES = 640
"""The samples of a try."""
SEED = 100
"""The training seed, which no other experiment uses."""
TARGET = TINY_TARGETS[0]

RateSelection = Callable[[Method], Method]
"""Returns a method with its learning rate."""


class Tuning(Experiment):
    """The reward on validation prompts for each method and learning rate."""

    name = "tuning"
    title = "The learning rate of each method"
    note = (
        f"{TARGET.name} on 64 validation prompts × 2 samples after {SAMPLES} training samples, one run of seed {SEED} a try. "
        f"Every method has {len(RATES)} tries. Other experiments use the best learning rate of each method from here, for other "
        "rewards as well, and evaluate on other prompts and seeds. The weight 0.01 of half-order RLR and its two steps of "
        "first order were chosen earlier, in about a dozen tries (README.md); no other method had such tries."
    )

    target: ClassVar[Target] = TARGET
    methods: ClassVar[Sequence[Method]] = (*TINY_METHODS, *ablations(RLR))
    samples: ClassVar[int] = SAMPLES
    evaluation: ClassVar[str] = "experiments/configs/tiny_validation.yaml"

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        if setting.gpu:
            raise ValueError(
                "learning rates are tuned for the setting tiny alone; other settings have them in their configs"
            )
        tries = zip(*(method.rates for method in self.methods), strict=True)
        return [self._run(setting, *pair) for rates in tries for pair in zip(self.methods, rates, strict=True)]

    def _run(self, setting: Setting, method: Method, rate: str) -> Run:
        tried = method.with_reward(self.target).with_overrides(f"{method.rate}={rate}")
        return self.command(tried).as_run(setting, self.name, {"method": method.name, "lr": rate})

    def command(self, method: Method) -> Command:
        """Returns the run of a try."""
        return Training(method, self.evaluation, SEED, (method.updates(self.samples),))

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        kinds = dict.fromkeys((method.rate, method.rates) for method in self.methods)
        return [self._table(rate, rates, ended(rows)) for rate, rates in kinds]

    def _table(self, rate: str, rates: Sequence[str], rows: Sequence[Row]) -> Table:
        alike = {method.name for method in self.methods if (method.rate, method.rates) == (rate, rates)}
        lines = [
            (str(method), *(mean_of(_at(group, tried), f"{self.target.label} gain") for tried in rates))
            for (method,), group in grouped(rows, "method").items()
            if method in alike
        ]
        parameter = rate.rpartition(".")[2]
        head = ("method", *(f"{parameter} {float(tried):g}" for tried in rates))
        return Table(f"Gain in {self.target.name} by {parameter}", head, lines)


def ended(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows after training."""
    return [row for row in rows if row.get("update") != 0]


def _at(rows: Sequence[Row], rate: str) -> list[Row]:
    return [row for row in rows if row["lr"] == rate]


def tuned(name: str | None = None, tuning: type[Tuning] = Tuning) -> Callable[[Setting], RateSelection]:
    """Returns a function that sets the best learning rate of each method, or of the method with a given name."""
    return lambda setting: _choice(setting, name, tuning())


def _choice(setting: Setting, name: str | None, tuning: Tuning) -> RateSelection:
    rows = ended(Results.of(setting, tuning.name).rows(tuning.runs(setting, ())))
    tries = {method: group for (method,), group in grouped(rows, "method").items()}

    def choose(method: Method) -> Method:
        found = tries.get(name or method.name, [])
        if len(found) < len(method.rates):
            raise ValueError(
                f"the learning rate of {name or method.name} is not tuned; run `python experiments/run.py {tuning.name} "
                f"--setting {setting.name}` first"
            )
        (rate,) = best(found, lambda group: numbers(group, tuning.target.label)[0], "lr")
        return method.with_overrides(f"{method.rate}={rate}")

    return choose


def configured(setting: Setting) -> RateSelection:
    """Returns a function that keeps the learning rate of the config."""
    return lambda method: method
