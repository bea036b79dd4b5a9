"""Finding, checking and reading weights."""

import hashlib
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rlr.io.hub import Published, find
from rlr.io.weights import build, read_state

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(STATE, path)
    return path


def test_a_file_or_its_folder(file):
    assert find(str(file), [Published("other.pt")]) == file
    assert find(str(file.parent), [Published("other.pt"), Published("weights.pt")]) == file


@pytest.mark.parametrize("source", ["/nowhere/weights.pt", "nobody/nothing", "not a hub id!"])
def test_what_is_nowhere_is_named(source):
    message = rf"weights\.pt was not found in '{source}' \(.+\); set the path of the file, a folder"
    with pytest.raises(FileNotFoundError, match=message):
        find(source, [Published("weights.pt")])


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_the_checksum_of_a_published_name(file, algorithm):
    right = hashlib.new(algorithm, file.read_bytes()).hexdigest()
    assert find(str(file), [Published("weights.pt", algorithm, right)]) == file
    wrong = Published("weights.pt", algorithm, "0" * len(right))
    with pytest.raises(
        ValueError, match=rf"with {algorithm} 0+, got {algorithm} {right}; download it again, or pass verify"
    ):
        find(str(file), [wrong])
    assert find(str(file), [wrong], verify=False) == file
    renamed = file.rename(file.with_name("mine.pt"))
    assert find(str(renamed), [wrong]) == renamed


def test_every_format_of_weights(file, tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": STATE, "epoch": 3}, tmp_path / "c.pt")
    torch.save({key: value.half() for key, value in STATE.items()}, tmp_path / "d.pt")
    for path in (file, *(tmp_path / name for name in ("a.safetensors", "b.pt", "c.pt", "d.pt"))):
        found = read_state(path)
        assert found.keys() == STATE.keys()
        assert all(torch.equal(found[key], STATE[key]) for key in STATE)
        assert found["weight"].dtype == torch.float32


class Code:
    def __reduce__(self):
        return (pytest.fail, ("the file ran code",))


def test_code_in_a_file_is_not_run(tmp_path):
    (tmp_path / "code.pt").write_bytes(pickle.dumps(Code()))
    torch.save({"state_dict": STATE, "config": Code()}, tmp_path / "zip.pt")
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04")
    what = {
        "code.pt": "holds Python objects",
        "zip.pt": "holds Python objects",
        "damaged.pt": "is cut off after 4 bytes",
    }
    for name, says in what.items():
        with pytest.raises(ValueError, match=rf"{name} {says}.*download it again$"):
            read_state(tmp_path / name)


def test_a_file_of_something_else(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    with pytest.raises(ValueError, match=r"epoch\.pt holds no state dict"):
        read_state(tmp_path / "epoch.pt")


def test_building_draws_nothing_and_freezes(file):
    before = torch.get_rng_state()
    network = build(lambda: nn.Linear(3, 2), read_state(file), file)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(network.weight, STATE["weight"])
    assert not network.weight.requires_grad
    assert not network.training
    assert network.weight.data_ptr() % 64 == 0


def test_all_that_does_not_fit_is_named(file):
    state = {"weight": torch.zeros(3, 3), "b": torch.zeros(1), "a": torch.zeros(1)}
    message = r"does not fit Linear: bias is missing \(1 such\), a is foreign \(2 such\), weight has another shape \(1 such\);"
    with pytest.raises(ValueError, match=message):
        build(lambda: nn.Linear(3, 2), state, file)
