"""Passes, calls and bytes of each estimator are those that are committed: whoever changes one has to say so."""

import json

import pytest

from rlr import estimators
from rlr.estimators import Estimator, HalfOrder
from rlr.estimators.base import Estimator as Base
from tests.analysis.costs import CASES, COMMAND, FILE, Costs, World, ratios

COMMITTED = json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def world():
    return World()


def difference(name, found):
    """Says what differs from the committed costs; nothing where nothing does."""
    known = COMMITTED[name]
    return "; ".join(
        f"{name}.{field}: expected {known[field]}, found {value}"
        for field, value in vars(found).items()
        if value != known[field]
    )


@pytest.mark.parametrize("name", CASES)
def test_costs_are_the_committed_ones(world, name):
    found = difference(name, world.costs(CASES[name]))
    assert not found, f"{found}. If this is meant, write the costs again with `{COMMAND}` and say in CHANGELOG.md why"


def test_every_estimator_has_committed_costs():
    kinds = {type(make()) for make in CASES.values()}
    exported = {getattr(estimators, name) for name in estimators.__all__}
    missing = {
        kind.__name__
        for kind in exported
        if isinstance(kind, type) and issubclass(kind, Base) and kind is not Estimator and kind not in kinds
    }
    assert not missing
    assert COMMITTED.keys() == CASES.keys()


def test_times_are_ratios_to_one_estimator_of_the_same_run(world):
    """They are reported, and no law holds them: only that each is one, and that the weights are as before."""
    start = {name: weight.clone() for name, weight in world.start.items()}
    found = ratios(world, ["FirstOrder(1)", "HalfOrder(1)"], repeats=1)
    assert found["FirstOrder(1)"] == 1
    assert found["HalfOrder(1)"] > 0
    assert all(weight.equal(start[name]) for name, weight in world.chain.model.trainable.items())


def test_a_pass_more_and_a_graph_more_are_noticed(world):
    """The law above can fail."""

    class Wasteful(HalfOrder):
        def terms(self, rollout):
            rollout.resample()
            kept = list(super().terms(rollout))
            yield from kept

    found = world.costs(lambda: Wasteful(1))
    known = Costs(**COMMITTED["HalfOrder(1)"])
    assert found.forward > known.forward
    assert found.backward == known.backward
    assert found.peak_bytes > 1.2 * known.peak_bytes
    assert "HalfOrder(1).forward: expected" in difference("HalfOrder(1)", found)
