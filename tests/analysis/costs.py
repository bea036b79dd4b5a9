"""What a round of each estimator costs on the built-in model: ``python -m tests.analysis.costs`` writes ``costs.json`` again.

It prints the time of each as a ratio to that of ``FirstOrder(1)`` in the same run. A ratio depends on the machine and on what
else it does, so it is not committed, and nothing fails for it.
"""

import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlr.analysis.measure import counted, peak_bytes
from rlr.chain import Chain
from rlr.estimators import (
    AWM,
    DDPO,
    GRPO,
    RAM,
    RLR,
    AlignProp,
    AllSteps,
    Antithetic,
    DiffusionNFT,
    DirectAlign,
    DRaFTLV,
    DRTune,
    FirstOrder,
    ForwardProcess,
    HalfOrder,
    HalfOrderRLR,
    HybridPolicyGradient,
    LeapAlign,
    LookAhead,
    OfficialRLR,
    ReFL,
    Sum,
    ZerothOrder,
)
from rlr.estimators.base import Estimator
from rlr.io.json_file import write_json
from rlr.models import Guidance, LoRA
from rlr.objective import Objective
from rlr.rewards import Brightness
from rlr.samplers import DDIM
from rlr.toy.models import Tiny

FILE = Path(__file__).parent / "costs.json"
COMMAND = "python -m tests.analysis.costs"
STEPS, SEED = 4, 0
PROMPTS = ["a red circle"] * 2

CASES: dict[str, Callable[[], Estimator]] = {
    "AWM": lambda: AWM(process=ForwardProcess(2)),
    "AlignProp": AlignProp,
    "Antithetic(FirstOrder(1))": lambda: Antithetic(FirstOrder(1)),
    "DDPO(2)": lambda: DDPO(2),
    "DRTune(window=2)": lambda: DRTune(window=2),
    "DRaFTLV(2)": lambda: DRaFTLV(2),
    "DiffusionNFT": lambda: DiffusionNFT(process=ForwardProcess(2)),
    "DirectAlign": DirectAlign,
    "FirstOrder(1)": lambda: FirstOrder(1),
    "FirstOrder(AllSteps())": lambda: FirstOrder(AllSteps()),
    "GRPO()": GRPO,
    "HalfOrder(1)": lambda: HalfOrder(1),
    "HalfOrder(2, control=LookAhead())": lambda: HalfOrder(2, control=LookAhead()),
    "HalfOrderRLR(2)": lambda: HalfOrderRLR(2),
    "HalfOrderRLR(2, None, control=LookAhead())": lambda: HalfOrderRLR(2, None, control=LookAhead()),
    "HybridPolicyGradient": HybridPolicyGradient,
    "LeapAlign": LeapAlign,
    "OfficialRLR(2)": lambda: OfficialRLR(2),
    "RAM": lambda: RAM(process=ForwardProcess(2)),
    "RLR(2)": lambda: RLR(2),
    "RLR(2, steps=0)": lambda: RLR(2, steps=0),
    "ReFL(2)": lambda: ReFL(2),
    "Sum": lambda: Sum([HalfOrderRLR(2), HalfOrder(1)]),
    "ZerothOrder()": ZerothOrder,
    "ZerothOrder(antithetic=False)": lambda: ZerothOrder(antithetic=False),
}


@dataclass(frozen=True)
class Costs:
    """What a round costs.

    Args:
        forward: Evaluations of the denoiser on the whole batch.
        backward: How many of them were run backward.
        encoder_calls: Calls of the text encoder.
        encoded: The texts of all of them.
        scored: The samples that were decoded and scored.
        peak_bytes: The most bytes of tensors alive at once, beyond weights and noises.
    """

    forward: float
    backward: float
    encoder_calls: int
    encoded: int
    scored: int
    peak_bytes: int


class World:
    """The built-in model with a LoRA, guidance and a sampler with noise, and a reward with a gradient."""

    def __init__(self) -> None:
        torch.manual_seed(SEED)
        self.chain = Chain(Guidance(Tiny(trainable=LoRA(4)), 3.0), DDIM(STEPS, 1.0))
        self.start = {name: weight.detach().clone() for name, weight in self.chain.model.trainable.items()}
        self.noises = self.chain.draw(range(len(PROMPTS)))

    def round(self, estimator: Estimator) -> int:
        """Makes all updates of a round and returns the number of samples that were scored."""
        objective = Objective(self.chain.model, Brightness())
        optimizer = torch.optim.SGD(self.chain.model.trainable.values(), 1e-3)
        rollout = estimator.rollout(self.chain, PROMPTS, self.noises, objective.of_frames(), SEED)
        for terms in estimator.updates([rollout]):
            for term in terms:
                term.backward()
                del term  # its graph must be gone before the next is built
            optimizer.step()
            optimizer.zero_grad()
        _ = rollout.scores  # as the log of a round needs them
        return objective.calls

    def costs(self, make: Callable[[], Estimator]) -> Costs:
        """Measures an estimator."""
        estimator, scored = make(), []
        estimator.check(self.chain)
        with self._reset(), encoding(self.chain) as texts, counted(self.chain, len(PROMPTS)) as passes:
            peak = peak_bytes(lambda: scored.append(self.round(estimator)), torch.device("cpu"))
        return Costs(passes.forward, passes.backward, len(texts), sum(texts), *scored, peak)

    def seconds(self, make: Callable[[], Estimator], repeats: int = 3) -> float:
        """Returns the least CPU seconds of a round, of several rounds."""
        times = []
        for _ in range(repeats):
            with self._reset():
                began = time.process_time()
                self.round(make())
                times.append(time.process_time() - began)
        return min(times)

    @contextmanager
    def _reset(self) -> Iterator[None]:
        self.chain.model.model.text._cache.clear()
        # what waits for a collection would count as alive
        gc.collect()
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
            for name, weight in self.chain.model.trainable.items():
                weight.data.copy_(self.start[name])


@contextmanager
def encoding(chain: Chain) -> Iterator[list[int]]:
    """Notes the number of texts in each call of the text encoder."""
    texts: list[int] = []

    def note(module: torch.nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        texts.append(len(args[0] if args else kwargs["input_ids"]))

    hook = chain.model.model.text.encoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield texts
    finally:
        hook.remove()


def ratios(world: World, names: Sequence[str], unit: str = "FirstOrder(1)", repeats: int = 3) -> Mapping[str, float]:
    """Returns the time of a round of each estimator over that of one of them."""
    one = world.seconds(CASES[unit], repeats)
    return {name: 1.0 if name == unit else world.seconds(CASES[name], repeats) / one for name in names}


def write(names: Sequence[str] = tuple(CASES)) -> None:
    """Measures, writes the file, and prints the ratios of the times."""
    world = World()
    write_json(FILE, {name: asdict(world.costs(CASES[name])) for name in names})
    for name, ratio in ratios(world, names).items():
        sys.stdout.write(f"{ratio:6.2f} times FirstOrder(1): {name}\n")


if __name__ == "__main__":
    write()
