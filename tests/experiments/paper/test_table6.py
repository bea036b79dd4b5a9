"""Table 6: memory is ordered as graphs are, and what saves memory saves it."""

import pytest
import torch

from experiments.base import Table
from experiments.paper.table6 import ENTRIES, MIB, OFFLOAD, PLAIN, SAVINGS, WORKLOADS, Table6, Updates, Workload
from experiments.settings import SD14, TINY, VC2
from rlr.rewards import Brightness
from tests.toy.demo.toy import Smear

CPU = torch.device("cpu")
NAMES = {entry.name: entry for entry in ENTRIES}


@pytest.fixture(scope="module")
def smeared() -> Updates:
    return Updates(Workload("a model of one moment", 10, 16, Smear, Brightness), CPU)


def test_there_is_a_run_for_every_method_and_saving() -> None:
    for setting in (TINY, SD14):
        runs = Table6().runs(setting, (0, 1))
        assert len({run.title for run in runs}) == len(runs) == len(ENTRIES) * len(SAVINGS)
        assert all(WORKLOADS[setting.name].title in run.command for run in runs)
    with pytest.raises(ValueError, match="not vc2; use one of these"):
        Table6().runs(VC2, ())


def test_random_weights_need_no_download() -> None:
    lacking = Table6().missing(SD14)
    assert lacking is None or "needs a GPU" in lacking


def test_memory_is_that_of_the_graph_alive(smeared: Updates) -> None:
    found = {name: smeared.memory(entry, PLAIN)["device_mib"] for name, entry in NAMES.items()}
    assert found["DRaFT-1"] < found["RLR"] < found["full backpropagation"]
    assert found["DDPO"] < found["AlignProp, mean of 4 draws"] < found["AlignProp, largest draw"]
    assert found["half-order RLR, one segment"] < found["full backpropagation"]
    # the largest draw keeps all steps
    assert found["AlignProp, largest draw"] == pytest.approx(found["full backpropagation"], rel=0.02)


def test_savings_save(smeared: Updates) -> None:
    full = NAMES["full backpropagation"]
    plain, checkpoint, offload, both = (smeared.memory(full, saving) for saving in SAVINGS)
    assert checkpoint["device_mib"] < plain["device_mib"]
    assert offload["device_mib"] < plain["device_mib"]
    assert plain["ram_mib"] == checkpoint["ram_mib"] == 0
    assert 0 < both["ram_mib"] < offload["ram_mib"]


def test_weights_are_counted_once(smeared: Updates) -> None:
    expected = sum(4 * w.numel() for w in smeared.model.parameters())
    assert smeared.weights == expected
    assert smeared.memory(ENTRIES[0], PLAIN)["weights_mib"] == expected / MIB


def test_the_page_compares_as_the_paper_does() -> None:
    rows = [
        {
            "method": entry.name,
            "saving": saving.name,
            "command": "x",
            "device_mib": 10.0 * (k + 1),
            "ram_mib": 5.0 if saving.offload else 0.0,
            "weights_mib": 10.0,
        }
        for k, entry in enumerate(ENTRIES)
        for saving in SAVINGS
    ]
    overview, published = Table6().report(rows)
    assert isinstance(published, Table)
    assert [line[0] for line in overview.rows] == [entry.name for entry in ENTRIES]
    assert overview.rows[0] == ("DDPO", "10", "10", "10 + 5", "10 + 5")
    assert published.rows[0] == ("DDPO", "20", "0", "20", "1.0")
    assert published.rows[1] == (ENTRIES[1].name, "30", "5", "35", "1.8")
    assert [entry.saving for entry in ENTRIES].count(OFFLOAD) == 3
