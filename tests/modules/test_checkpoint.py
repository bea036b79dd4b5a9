"""What a checkpoint holds is compared with what a new run holds, value by value."""

from dataclasses import asdict

import pytest
import torch

from rlr.modules.checkpoint import check_like, load_trained
from rlr.modules.progress import Progress
from rlr.modules.randomness import random_state
from tests.modules.toy import AffineModel

FRESH = {
    "progress": asdict(Progress()),
    "random": random_state(),
    "estimator": {"mean": 0.5, "names": ["a"], "weights": torch.ones(2)},
}


def test_a_later_state_of_the_same_run_is_accepted():
    later = {
        "progress": {**FRESH["progress"], "batches": 7, "running": 0.25},
        "random": random_state(),
        "estimator": {"mean": 1, "names": ["b", "c"], "weights": torch.zeros(3), "more": None},
    }
    check_like(FRESH, later, "last.ckpt", "alignment")


@pytest.mark.parametrize(
    ("part", "name", "value", "says"),
    [
        ("progress", "batches", None, "alignment.progress.batches: expected int, got None; resume from another"),
        ("progress", "batches", True, "alignment.progress.batches: expected int, got bool True;"),
        ("progress", "samples", "many", "alignment.progress.samples: expected int, got str 'many';"),
        ("random", "torch", [1], "alignment.random.torch: expected Tensor, got list;"),
        ("random", "numpy", None, "alignment.random.numpy: expected list, got None;"),
        ("estimator", "mean", "x", "alignment.estimator.mean: expected float, got str 'x';"),
        ("estimator", "names", [3], "alignment.estimator.names.0: expected str, got int 3;"),
        ("estimator", "weights", 1.0, "alignment.estimator.weights: expected Tensor, got float 1.0;"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_place(part, name, value, says):
    found = {**FRESH, part: {**FRESH[part], name: value}}
    with pytest.raises(ValueError, match=r"^last\.ckpt: ") as caught:
        check_like(FRESH, found, "last.ckpt", "alignment")
    assert says in str(caught.value)


def test_a_missing_value_is_named():
    found = {name: part for name, part in FRESH.items() if name != "random"}
    with pytest.raises(ValueError, match=r"last\.ckpt: alignment\.random is missing; resume from another checkpoint"):
        check_like(FRESH, found, "last.ckpt", "alignment")


def test_weights_that_are_no_tensors_are_named():
    model = AffineModel()
    before = {name: weight.clone() for name, weight in model.trainable.items()}
    with pytest.raises(ValueError, match=r"last\.ckpt .* AffineModel: bias is not a tensor \(1 such\)"):
        load_trained(model, {**before, "bias": None}, "last.ckpt")
    assert all(torch.equal(weight, before[name]) for name, weight in model.trainable.items())
