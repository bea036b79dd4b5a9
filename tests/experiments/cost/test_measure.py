import pytest
import torch

from experiments.cost.cases import CASES, Case, Needs
from experiments.cost.step import Bench, Units, line, table
from rlr.analysis.measure import counted, peak_bytes
from rlr.chain import Chain
from rlr.samplers import DDIM
from tests.toy.demo.toy import Smear

CPU = torch.device("cpu")
STEPS, BATCH = 9, 4


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
    bench = Bench(Chain(Smear(), DDIM(steps)), BATCH, repeats=1)
    needs = case.needs(steps)
    with counted(bench.chain, BATCH) as passes:
        bench.update(case)
    assert passes.forward >= needs.plain + needs.graph
    # nor more than twice as much: a recorded rollout and a replay of every step
    assert passes.forward <= 2 * (needs.plain + needs.graph) + 1
    assert passes.backward == needs.graph


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
