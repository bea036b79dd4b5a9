"""Table 6 of the paper: the memory of an update, by method."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import fmean

import torch

from experiments.base import Experiment, Figure, Row, Run, Table
from experiments.cost.shapes import SHAPES
from experiments.settings import SD14, TINY, Setting
from experiments.summary import grouped
from rlr.analysis.measure import peak_bytes
from rlr.analysis.offload_stats import Bytes, CountedOffload
from rlr.chain import Chain
from rlr.estimators import DDPO, RLR, AlignProp, AllSteps, FirstOrder, HalfOrderRLR, LookAhead
from rlr.estimators.base import Estimator
from rlr.models import Guidance
from rlr.models.base import DiffusionModel
from rlr.objective import Objective as Scored
from rlr.rewards import Brightness, Reward
from rlr.rollout import Objective
from rlr.samplers import DDIM
from rlr.toy.models import Tiny
from rlr.toy.rewards import TinyPickScore

MIB = 2**20
LENGTH = 4


@dataclass(frozen=True)
class Workload:
    r"""The model, the reward and the sizes of an update.

    Args:
        title: A description.
        steps: The number :math:`T` of steps.
        batch: The number :math:`B` of samples.
        model: Returns the base model.
        reward: Returns the reward.
    """

    title: str
    steps: int
    batch: int
    model: Callable[[], DiffusionModel]
    reward: Callable[[], Reward]


def random_sd14() -> DiffusionModel:
    """Returns Stable Diffusion 1.4 with random weights in bfloat16: memory does not depend on their values."""
    with tempfile.TemporaryDirectory() as folder:
        shape = SHAPES["sd14"]
        return shape.model(str(shape.write(Path(folder), torch.bfloat16)), "bfloat16")


WORKLOADS = {
    TINY.name: Workload("Tiny with LoRA of rank 4, guidance 5, TinyPickScore", 20, 4, Tiny, TinyPickScore),
    SD14.name: Workload(
        "networks of Stable Diffusion 1.4, bfloat16, LoRA of rank 4, guidance 5, mean brightness for a reward",
        50,
        2,
        random_sd14,
        Brightness,
    ),
}


@dataclass(frozen=True)
class Saving:
    """The options that save memory."""

    name: str
    checkpoint: bool
    offload: bool


PLAIN = Saving("nothing", False, False)
OFFLOAD = Saving("offload_activations", False, True)
SAVINGS = (PLAIN, Saving("checkpoint_steps", True, False), OFFLOAD, Saving("both", True, True))


@dataclass(frozen=True)
class Entry:
    """A method.

    Args:
        name: The name in tables.
        make: Returns the estimator.
        draws: The number of draws over which the memory is averaged.
        saving: The options that save memory in the comparison of the paper.
    """

    name: str
    make: Callable[[], Estimator]
    draws: int = 1
    saving: Saving = PLAIN


ENTRIES = (
    Entry("DDPO", lambda: DDPO(1)),
    Entry("AlignProp, mean of 4 draws", AlignProp, 4, OFFLOAD),
    Entry("AlignProp, largest draw", lambda: AlignProp(0, 0), saving=OFFLOAD),
    Entry("full backpropagation", lambda: FirstOrder(AllSteps()), saving=OFFLOAD),
    Entry("DRaFT-1", lambda: FirstOrder(1)),
    Entry("RLR", lambda: RLR(LENGTH)),
    Entry("half-order RLR, one segment", lambda: HalfOrderRLR(LENGTH)),
    Entry("half-order RLR, all segments, look-ahead", lambda: HalfOrderRLR(LENGTH, None, control=LookAhead())),
)


class Updates:
    """Updates of a workload.

    Args:
        workload: The workload.
        device: The device.
    """

    def __init__(self, workload: Workload, device: torch.device) -> None:
        self.workload, self.device = workload, device
        self.model = Guidance(workload.model(), 5.0).to(device).eval()
        self.prompts = ["a red circle left of a blue square"] * workload.batch
        self.reward = workload.reward().to(device).eval()
        self.objective: Objective = Scored(self.model, self.reward).of_frames()
        self.noises = self._chain(PLAIN).draw(range(workload.batch))

    def _chain(self, saving: Saving) -> Chain:
        return Chain(self.model, DDIM(self.workload.steps, eta=1.0), saving.checkpoint).eval()

    @property
    def weights(self) -> int:
        """Bytes of all weights, the reward's included."""
        parts = [*self.model.parameters(), *self.reward.parameters()]
        return sum(weight.numel() * weight.element_size() for weight in parts)

    def memory(self, entry: Entry, saving: Saving) -> Row:
        """Returns the peak memory of an update, on average over the draws of an entry."""
        found = [self._one(entry.make(), saving, seed) for seed in range(entry.draws)]
        return {
            "device_mib": fmean(device for device, _ in found) / MIB,
            "ram_mib": fmean(waiting for _, waiting in found) / MIB,
            "weights_mib": self.weights / MIB,
        }

    def _one(self, estimator: Estimator, saving: Saving, seed: int) -> tuple[int, int]:
        chain, waiting = self._chain(saving), Bytes()
        estimator.check(chain)

        def offloading() -> AbstractContextManager[object]:
            weights = [*self.model.parameters(), *self.reward.parameters()]
            return CountedOffload(weights, waiting) if saving.offload else nullcontext()

        peak = peak_bytes(lambda: self._update(estimator, chain, seed, offloading), self.device)
        return peak, waiting.peak

    def _update(
        self, estimator: Estimator, chain: Chain, seed: int, offloading: Callable[[], AbstractContextManager[object]]
    ) -> None:
        optimizer = torch.optim.AdamW(self.model.trainable.values(), 0.0)
        terms = estimator.terms(estimator.rollout(chain, self.prompts, self.noises, self.objective, seed))
        while True:
            with offloading():
                term = next(terms, None)
            if term is None:
                break
            term.backward()
            del term  # its graph must be gone before the next is built
        optimizer.step()
        optimizer.zero_grad()


@cache
def updates(name: str, device: torch.device) -> Updates:
    """Returns the updates of a setting, made once."""
    return Updates(WORKLOADS[name], device)


class Table6(Experiment):
    """The largest number of bytes of tensors that are alive at once in an update."""

    name = "table6"
    title = "Table 6: memory of an update"
    note = (
        "The largest number of bytes of tensors alive at once in one update (rollout, backward of every term, AdamW), beyond "
        "weights and noises: on a CPU from the sizes of all tensors, on a GPU from the allocator. Bytes that offload_activations "
        "moves are counted separately, also if the device is a CPU. AlignProp draws in each step whether the step keeps its "
        "gradient, about half of the steps; in its largest draw all do. DDPO and RLR keep the graph of one term at a time. RLR's "
        "segments have 4 steps. The seeds of the command have no effect."
    )
    published = (
        Table(
            "Table 6, Stable Diffusion 1.4, weights included",
            ("method", "VRAM", "system RAM", "total", "x DDPO"),
            (
                ("DDPO", "12.4 GB", "0 GB", "12.4 GB", "1.0"),
                ("AlignProp", "25.4 GB", "78.5 GB", "103.9 GB", "8.4"),
                ("RLR", "22.4 GB", "0 GB", "22.4 GB", "1.8"),
            ),
            "The last column is computed from the others. The paper does not state batch, precision and length of the sub-chain.",
        ),
    )

    def missing(self, setting: Setting) -> str | None:
        """Returns what the setting lacks; weights are not needed, because they are random."""
        return replace(setting, weights=()).missing()

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        workload = WORKLOADS.get(setting.name)
        if workload is None:
            raise ValueError(f"Table 6 has the settings {', '.join(WORKLOADS)}, not {setting.name}; use one of these")
        command = f"{workload.title}, DDIM, T = {workload.steps}, batch {workload.batch}"
        return [
            Run({"method": entry.name, "saving": saving.name}, command, partial(_rows, setting, entry, saving))
            for entry in ENTRIES
            for saving in SAVINGS
        ]

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        return [_overview(rows), _as_published(rows)]


def _rows(setting: Setting, entry: Entry, saving: Saving) -> list[Row]:
    return [updates(setting.name, setting.device).memory(entry, saving)]


def _overview(rows: Sequence[Row]) -> Table:
    lines = []
    for (method,), group in grouped(rows, "method").items():
        found = {str(row["saving"]): row for row in group}
        lines.append((str(method), *(_memory_text(found.get(saving.name)) for saving in SAVINGS)))
    weights = float(rows[0]["weights_mib"])
    note = (
        "MiB on the device and, if activations are offloaded, + MiB in the CPU's memory. "
        f"Weights take {weights:.0f} MiB in addition."
    )
    return Table(str(rows[0]["command"]), ("method", *(saving.name for saving in SAVINGS)), lines, note)


def _memory_text(row: Row | None) -> str:
    if row is None:
        return "–"
    waiting = float(row["ram_mib"])
    return f"{float(row['device_mib']):.0f}" + (f" + {waiting:.0f}" if waiting else "")


def _as_published(rows: Sequence[Row]) -> Table:
    """Returns the comparison of the paper: AlignProp offloads activations, the other methods do not."""
    savings = {entry.name: entry.saving.name for entry in ENTRIES}
    chosen = [row for row in rows if row["saving"] == savings.get(str(row["method"]))]
    least = next((sum(_memory(row)) for row in chosen if row["method"] == ENTRIES[0].name), None)
    lines = [_shares(row, least) for row in chosen]
    note = "MiB, weights included. As in the paper, only backpropagation through many steps offloads activations."
    return Table("As in the paper", ("method", "device", "CPU", "total", "x DDPO"), lines, note)


def _memory(row: Row) -> tuple[float, float]:
    return float(row["weights_mib"]) + float(row["device_mib"]), float(row["ram_mib"])


def _shares(row: Row, least: float | None) -> tuple[str, ...]:
    device, waiting = _memory(row)
    share = f"{(device + waiting) / least:.1f}" if least else "–"
    return str(row["method"]), f"{device:.0f}", f"{waiting:.0f}", f"{device + waiting:.0f}", share
