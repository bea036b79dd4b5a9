import pkgutil
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from experiments.cost.cases import CASES, Case, Needs
from experiments.cost.step import Bench, Units, line, table
from rlr.analysis.measure import counted, peak_bytes
from rlr.chain import Chain
from rlr.estimators import Estimator, published
from rlr.estimators.pathwise import pathwise
from rlr.samplers import DDIM
from tests.config_cover import classes, filled_in
from tests.toy.demo.toy import Smear

CPU = torch.device("cpu")
STEPS, BATCH = 9, 4
CONFIGS = Path(__file__).parents[3] / "configs" / "image"
NOT_TIMED: dict[str, str] = {}
"""The published estimators that no case times, with the reason of each."""


class Based(Smear):
    """Has a base model, which is the model itself: a pass of it costs as much."""

    def reference(self) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture
def bench() -> Bench:
    return Bench(Chain(Smear(), DDIM(STEPS)), BATCH, repeats=1)


def test_passes_of_a_rollout_and_a_replay() -> None:
    chain = Chain(Smear(), DDIM(STEPS))
    with counted(chain, BATCH) as passes:
        trajectory = chain.sample(chain.encode(["a", "b", "c", "d"]), chain.draw(range(BATCH)))
        assert (passes.forward, passes.backward) == (STEPS, 0)
        chain.replay(trajectory, 3, 0).mean.sum().backward()
    assert (passes.forward, passes.backward) == (STEPS + 3, 3)
    chain.sample(chain.encode(["a", "b", "c", "d"]), chain.draw(range(BATCH)))
    assert passes.forward == STEPS + 3


def test_half_a_batch_is_half_a_pass() -> None:
    chain = Chain(Smear(), DDIM(STEPS))
    with counted(chain, 2 * BATCH) as passes:
        chain.sample(chain.encode(["a", "b", "c", "d"]), chain.draw(range(BATCH)))
    assert passes.forward == STEPS / 2


@pytest.mark.parametrize("steps", [STEPS, 20])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_estimator_does_less_than_the_least(case: Case, steps: int) -> None:
    bench = Bench(Chain(Based(), DDIM(steps)), BATCH, repeats=1)
    needs = case.needs(steps)
    with counted(bench.chain, BATCH) as passes:
        bench.update(case)
    assert passes.forward >= needs.plain + needs.graph
    # nor more than twice as much: a recorded rollout and a replay of every step
    assert passes.forward <= 2 * (needs.plain + needs.graph) + 1
    assert passes.backward == needs.graph


def published_kinds() -> set[type[Estimator]]:
    """The estimators of ``rlr.estimators.published`` that a config of the built-in model names."""
    modules = [
        import_module(f"{published.__name__}.{found.name}") for found in pkgutil.iter_modules(published.__path__)
    ]
    kinds = {
        kind for module in modules for kind in vars(module).values() if isinstance(kind, type) and of(kind, module)
    }
    named = set().union(*(classes(filled_in(path)) for path in CONFIGS.glob("tiny_*.yaml")))
    return {kind for kind in kinds if kind.__name__ in named}


def of(kind: type, module: object) -> bool:
    return issubclass(kind, Estimator) and kind.__module__ == module.__name__  # type: ignore[attr-defined]


def untimed(cases: tuple[Case, ...]) -> set[str]:
    """The names of published estimators that no case times, without those that have a reason."""
    timed = {type(case.make()) for case in cases}
    return {kind.__name__ for kind in published_kinds() - timed} - NOT_TIMED.keys()


def test_every_published_estimator_is_timed_or_has_a_reason() -> None:
    assert {"GRPO", "LeapAlign", "DRTune", "DirectAlign", "DiffusionNFT", "AWM", "RAM", "HybridPolicyGradient"} <= {
        kind.__name__ for kind in published_kinds()
    }
    assert untimed(CASES) == set()
    assert untimed(tuple(case for case in CASES if case.name != "LeapAlign")) == {"LeapAlign"}


def test_the_shipped_default_is_timed() -> None:
    assert pathwise in [case.make for case in CASES]
    written, made = yaml.safe_load((CONFIGS / "parts" / "look_ahead.yaml").read_text()), pathwise()
    assert written["class_path"] == type(made).__name__
    control = written["init_args"].pop("control")
    values = vars(made.half) | vars(made)
    for arguments, found in ((written["init_args"], values), (control["init_args"], vars(made.half.control))):
        for name, value in arguments.items():
            assert value in (found[name], type(found[name]).__name__), name


def test_the_old_policy_of_a_later_round_costs_a_pass_of_each_noised_sample() -> None:
    for case in CASES:
        if "levels" in case.name:
            bench = Bench(Chain(Based(), DDIM(STEPS)), BATCH, repeats=1)
            forward = []
            for one in (case, Case(case.name, case.make, case.needs)):
                with counted(bench.chain, BATCH) as passes:
                    bench.update(one)
                forward.append(passes.forward)
            assert forward[0] == forward[1] + 4 == STEPS + 12


def test_peak_counts_what_is_alive_at_once() -> None:
    n = 100_000

    def work() -> None:
        a = torch.zeros(n)
        b = a + 1
        del a
        c = b * 2
        c.add_(b.view(-1))

    # a and b, then b and c: never three
    assert peak_bytes(work, CPU) == 2 * 4 * n


def test_peak_counts_what_a_graph_saves() -> None:
    n = 100_000
    weight = torch.zeros(n, requires_grad=True)

    def exponentials(count: int) -> None:
        x = weight
        for _ in range(count):
            x = x.exp()
        x.sum().backward()
        weight.grad = None

    # every further exponential saves its result
    assert peak_bytes(lambda: exponentials(6), CPU) - peak_bytes(lambda: exponentials(3), CPU) == 3 * 4 * n


def test_a_graph_of_one_step_takes_less_than_one_of_all(bench: Bench) -> None:
    cases = {case.name: case for case in CASES}
    peaks = [peak_bytes(lambda n=n: bench.update(cases[n]), CPU) for n in ("FirstOrder(1)", "FirstOrder(all)")]
    assert peaks[0] < 0.7 * peaks[1]


def test_least_time_is_the_sum_of_its_parts() -> None:
    assert Units(1.0, 10.0, 100.0, 1000.0).of(Needs(1, 2, 3, 4)) == 1 + 20 + 300 + 4000


def test_the_table_has_a_column_for_every_cell(bench: Bench) -> None:
    row = bench.row(CASES[0], Units(1.0, 1.0, 1.0, 1.0))
    assert line(row).count("|") == table([]).splitlines()[0].count("|") == 7
    assert row.overhead == pytest.approx(row.seconds / (STEPS + 1))


def test_an_update_moves_the_weights(bench: Bench) -> None:
    before = bench.chain.model.bias.detach().clone()
    bench.update(CASES[0])
    assert not torch.equal(before, bench.chain.model.bias)
