import pytest
import torch

from experiments.cost.edict import Case, Measured, line, measure
from tests.toy.demo.toy import Smear


def test_what_is_measured_of_coupled_chains() -> None:
    found = measure(Smear(), 20, 0.93, ["a", "b"])
    assert found.error < 1e-4
    assert 0 < found.apart < 1
    assert 0 < found.from_ddim < 1
    with pytest.raises(ValueError, match="mixing must lie"):
        measure(Smear(), 20, 2.0, ["a"])
    assert measure(Smear(), 20, 0.4, ["a", "b"]).error > 100 * found.error
    assert torch.is_grad_enabled()


def test_a_row_of_the_table() -> None:
    assert (
        line(Case("float32", 3.0, 20, 0.93), Measured(1.23e-5, 0.5, 2))
        == "| float32 | 3 | 20 | 0.93 | 1.2e-05 | 0.5 | 2 |"
    )
