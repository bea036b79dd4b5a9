"""Every public vector is a test: what the authors' programs computed is read, all of it."""

from importlib import import_module
from inspect import isfunction, signature
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.rewards.packing import FORMS, pack, unpack
from tests.rewards.vectors import FIXTURES, Reading, declared, load, reads

CASES = sorted(path.name.split(".")[0] for path in FIXTURES.glob("*.tensors.xz"))
MODULES = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))


@pytest.fixture(scope="module")
def declarations():
    """The tests that declare to read vectors."""
    members = [member for name in MODULES for member in vars(import_module(f"tests.rewards.{name}")).values()]
    return [member for member in members if isfunction(member) and hasattr(member, "reads")]


def test_there_are_vectors_of_every_reward():
    models = {"aes", "hpsv2", "imagereward", "pickscore"}
    assert set(CASES) == {f"{model}_tiny" for model in models} | {"aes_real_head", "full", "preprocess_224"}
    assert {key.split("/")[0] for key in load("full")} == {f"full_{model}" for model in models}


@pytest.mark.parametrize("case", [*CASES, "lists"])
def test_every_vector_is_read_by_a_test(declarations, case):
    read = set().union(*(declared(test) for test in declarations if test.reads[0] == case))
    assert read == set(load(case))


def test_who_declares_to_read_is_a_test_and_has_the_vectors(declarations):
    assert len(declarations) > 30
    for test in declarations:
        assert test.__name__.startswith("test_")
        assert "vectors" in signature(test).parameters


def test_what_is_not_declared_cannot_be_read_and_what_is_unread_is_known():
    reading = Reading({"a": 1, "b": 2, "c": 3}, {"a", "b"})
    with pytest.raises(KeyError, match="c is not declared"):
        reading["c"]
    assert reading["a"] == 1
    assert reading.unread == {"b"}


def test_a_declaration_of_what_there_is_not_is_refused():
    @reads("aes_tiny", "outputs.nothing")
    def declaration():
        pass

    with pytest.raises(LookupError, match=r"aes_tiny holds no outputs\.nothing"):
        declared(declaration)


def test_what_is_packed_comes_back_bit_for_bit():
    random = np.random.default_rng(0)
    bytes_ = random.integers(0, 256, (2, 3, 5, 4), np.uint8)
    levels = bytes_.astype(np.float32) / np.float32(255)
    mean = np.float32([0.48145466, 0.4578275, 0.40821073]).reshape(3, 1, 1)
    arrays = {
        "picture": random.integers(0, 256, (6, 5, 3), np.uint8),
        "grey": random.integers(0, 256, (6, 5), np.uint8),
        "normalised": (levels - mean) / np.float32([0.26862954, 0.26130258, 0.27577711]).reshape(3, 1, 1),
        "overdone": (levels * 2 - 1) * np.float32(1.15),
        "floats": random.standard_normal((2, 3, 5, 4)).astype(np.float32),
        "one": np.float32(-0.0),
        "nan": np.full((1, 3, 2, 2), np.nan, np.float32),
        "integers": random.integers(-9, 9, (4, 7)),
        "doubles": random.standard_normal(3),
        "empty": np.zeros((0, 3), np.float32),
    }
    arrays["again"] = arrays["floats"].copy()
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}
    found = unpack(pack(tensors))
    assert list(found) == list(tensors)
    for key, tensor in tensors.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape)
        assert found[key].numpy().tobytes() == tensor.numpy().tobytes()


def test_a_form_that_would_lose_a_bit_is_not_taken():
    levels = (np.arange(12, dtype=np.float32).reshape(3, 2, 2) / np.float32(255) * 2 - 1) * np.float32(1.15)
    assert FORMS["overdone"].fits(levels)
    assert not FORMS["overdone"].fits(np.nextafter(levels, np.float32(2)))
    assert not FORMS["normalised"].fits(levels)
