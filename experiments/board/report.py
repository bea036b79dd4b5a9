"""The tables and figures of a track."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.base import Figure, Row, Table
from experiments.board.held_out_curves import LEVEL, Curve, Mean
from experiments.board.tracks import Track
from experiments.reporting import curves
from experiments.summary import grouped, numbers

COSTS = {"samples": "samples", "reward_calls": "reward calls", "step_seconds": "CPU seconds"}
"""The names of the costs by their columns."""
REFERENCES = ("DDPO", "RLR (paper)")
"""The methods whose final scores the table of shares compares with."""
MISSING = "–"


@dataclass(frozen=True)
class Board:
    """The report of a track.

    Args:
        track: The track.
        rows: The rows of all measured runs.
    """

    track: Track
    rows: Sequence[Row]

    @staticmethod
    def note(track: Track) -> str:
        """Returns what the tables show."""
        return (
            f"The built-in model {track.model} with LoRA of rank 4, {track.steps} steps of {track.sampler} and no guidance, is "
            f"trained for {track.target.name} with {track.samples} samples ({track.title}). Every {track.every} samples it is "
            "evaluated on held-out captions, with the same noises for all methods; no run trains on these captions, and tuning "
            "and demo do not use them. Samples are rollouts of the current weights. Reward calls count every score of the trained "
            "reward, also those of perturbed weights and of predicted samples. CPU seconds are those of the training steps, "
            f"without evaluation, on one thread. Values are means over training seeds with {LEVEL:.0%} intervals (Student's t); "
            f"values between two evaluations are interpolated linearly. The learning rates were selected by {track.judge} on other "
            "captions."
        )

    def report(self) -> list[Table | Figure]:
        """Returns the tables and figures, the time to a fixed score first."""
        calls, seconds = float(self.track.samples), self.track.seconds
        budgets = (("samples", calls), ("reward_calls", calls), ("step_seconds", seconds))
        at_budgets = [self.at_budget(cost, budget) for cost, budget in budgets]
        return [self.time_to_score(), *at_budgets, *self.differences(), *self.shares(), *self.figures()]

    @property
    def base(self) -> float:
        """The held-out reward of the base model, which is the same in all runs."""
        return fmean(numbers([row for row in self.rows if row["update"] == 0], self.track.target.label))

    # ------------------------------------------------------------------ tables

    def time_to_score(self) -> Table:
        """Returns the costs after which each method has the fixed held-out score for the first time."""
        label, score = self.track.target.label, self.base + self.track.gain
        lines = []
        for name, runs in self._methods():
            costs = (_costs([Curve.of(run, cost, label).cost_of(score) for run in runs]) for cost in COSTS)
            lines.append((name, *costs, self._per_update(runs), str(len(runs))))
        head = ("method", *(f"{shown} to {score:.4g}" for shown in COSTS.values()), "CPU seconds an update", "runs")
        note = (
            f"The score is that of the base model, {self.base:.4g}, plus {self.track.gain:g}. If some runs do not reach it, the "
            "number of those that do is given, and no mean."
        )
        return Table(f"Cost of a held-out {self.track.target.name} of {score:.4g}", head, lines, note)

    def at_budget(self, cost: str, budget: float) -> Table:
        """Returns the held-out measurements of each method at a budget."""
        labels = self.track.measurements
        start = [row for row in self.rows if row["update"] == 0]
        lines = [("base", *(_number(fmean(numbers(start, label)), label) for label in labels), MISSING)]
        for name, runs in self._methods():
            found = {label: [Curve.of(run, cost, label).score_at(budget) for run in runs] for label in labels}
            reached = [value for value in found[labels[0]] if value is not None]
            lines.append((name, *(_scores(values, label) for label, values in found.items()), str(len(reached))))
        note = f"Runs that end before {budget:g} {COSTS[cost]} are left out." if cost == "step_seconds" else ""
        return Table(f"After {budget:g} {COSTS[cost]}", ("method", *labels, "runs"), lines, note)

    def differences(self) -> list[Table]:
        """Returns the mean differences from the base model on the way: of the reward, the gold checks and the diversity."""
        every = range(self.track.every, self.track.samples + 1, self.track.every)
        return [
            Table(
                f"{label}: difference from the base model, by samples",
                ("method", *map(str, every)),
                [(name, *(self._difference(runs, label, at) for at in every)) for name, runs in self._methods()],
            )
            for label in self.track.measurements
        ]

    def _difference(self, runs: Sequence[Sequence[Row]], label: str, samples: float) -> str:
        curves = [Curve.of(run, "samples", label) for run in runs]
        found = [(curve.score_at(samples), curve.scores[0]) for curve in curves]
        gains = [score - base for score, base in found if score is not None]
        return f"{fmean(gains):+.3f}" if gains else MISSING

    def shares(self) -> list[Table]:
        """Returns the costs of the final scores of the measured reference methods, relative to the costs of these methods."""
        known = dict(self._methods())
        references = [name for name in REFERENCES if name in known]
        if not references:
            return []
        lines = []
        for name, runs in known.items():
            shares = [self._share(runs, known[other], cost) for other in references for cost in COSTS]
            lines.append((name, *shares))
        head = ("method", *(f"{other}: {shown}" for other in references for shown in COSTS.values()))
        note = (
            "The score is the mean held-out reward of the reference at the end of its runs. A share of 0.2 means "
            "that the method has this score after a fifth of the reference's cost. The share is 0 if the score is below "
            "that of the base model."
        )
        return [Table("Share of the cost of a reference's final score", head, lines, note)]

    def _share(self, runs: Sequence[Sequence[Row]], reference: Sequence[Sequence[Row]], cost: str) -> str:
        label = self.track.target.label
        score = fmean(float(run[-1][label]) for run in reference)
        whole = fmean(float(run[-1][cost]) for run in reference)
        found = [Curve.of(run, cost, label).cost_of(score) for run in runs]
        return _costs([None if value is None else value / whole for value in found], 2)

    def _per_update(self, runs: Sequence[Sequence[Row]]) -> str:
        return f"{fmean(float(run[-1]['step_seconds']) / float(run[-1]['update']) for run in runs):.2f}"

    def _methods(self) -> list[tuple[str, list[list[Row]]]]:
        """Returns the runs of each method, each with its rows in order."""
        return [
            (str(name), [sorted(run, key=lambda row: float(row["update"])) for run in grouped(group, "seed").values()])
            for (name,), group in grouped(self.rows, "method").items()
        ]

    # ------------------------------------------------------------------ figures

    def figures(self) -> list[Figure]:
        """Returns the curves against each cost, and of the gold checks against the trained reward."""
        label, name = self.track.target.label, self.track.target.name
        scores = [(label, f"held-out {name}"), *self.track.gold[:1]]
        against = "Means over training seeds at each evaluation, bands from the smallest to the largest."
        gold = "The gold checks take no part in training. If the reward rises and they fall, the model exploits the reward."
        return [
            curves(self.rows, list(COSTS.items()), scores, f"Held-out {name} by cost", against),
            curves(self.rows, [(label, f"held-out {name}")], self.track.gold, f"Gold checks by held-out {name}", gold),
        ]


def _costs(values: Sequence[float | None], decimals: int = 0) -> str:
    """Returns the mean cost with its interval, or how many runs reach the score."""
    reached = [value for value in values if value is not None]
    if len(reached) < len(values):
        return f"{len(reached)} of {len(values)} runs reach it"
    return _interval(Mean.of(reached), decimals)


def _scores(values: Sequence[float | None], label: str) -> str:
    found = [value for value in values if value is not None]
    return _interval(Mean.of(found), _decimals(label)) if found else MISSING


def _interval(mean: Mean, decimals: int) -> str:
    text = f"{mean.mean:.{decimals}f}"
    return text if mean.number < 2 else f"{text} ({mean.low:.{decimals}f} … {mean.high:.{decimals}f})"


def _number(value: float, label: str) -> str:
    return f"{value:.{_decimals(label)}f}"


def _decimals(label: str) -> int:
    return 3 if label in ("ExactCheck", "diversity") else 2
