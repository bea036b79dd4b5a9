"""A damaged file of weights is refused in one sentence; a whole one is read."""

import json
import random
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from rlr.callbacks import SafeCheckpointIO
from rlr.io.file_kind import identify
from rlr.io.weights import map_state, pack, read_json, save_whole, unpack, write_state

STATE = {"weight": torch.arange(300.0).view(3, 100), "bias": torch.ones(2)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def read_checkpoint(path):
    return SafeCheckpointIO().load_checkpoint(path)["state_dict"]


READERS = {"checkpoint": read_checkpoint, "weights": map_state}


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.ckpt"
    save_whole(path, {"state_dict": STATE})
    return path


def contents(path):
    """The positions of the records' content in a zip file whose records are stored as they are."""
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            at = info.header_offset
            begin = (
                at
                + 30
                + int.from_bytes(data[at + 26 : at + 28], "little")
                + int.from_bytes(data[at + 28 : at + 30], "little")
            )
            yield from range(begin, begin + info.file_size)


def flip(path, position, bit, to):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    to.write_bytes(data)
    return to


def refused(read, path):
    """Whether reading a file is refused, in one sentence that names it."""
    try:
        read(path)
    except ValueError as error:
        return path.name in str(error) and "\n" not in str(error)
    return False


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_flipped_bit_of_content_is_found(whole, tmp_path, read):
    assert same(read(whole))
    positions, draw = list(contents(whole)), random.Random(0)
    assert len(positions) > 1200
    for position in draw.sample(positions, 300):
        path = flip(whole, position, draw.randrange(8), tmp_path / "flipped.ckpt")
        with pytest.raises(
            ValueError, match=r"flipped\.ckpt is damaged: .* does not have the checksum .*; (resume|download)"
        ):
            read(path)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(whole, tmp_path, read):
    size, draw = whole.stat().st_size, random.Random(1)
    for position in range(0, size, 3):
        path = flip(whole, position, draw.randrange(8), tmp_path / "flipped.ckpt")
        assert refused(read, path) or same(read(path))


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("fill", ["random", "zeros"])
def test_overwritten_bytes_are_found_or_change_nothing(whole, tmp_path, read, fill):
    draw = random.Random(2)
    for position in range(0, whole.stat().st_size - 64, 97):
        data = bytearray(whole.read_bytes())
        data[position : position + 64] = bytes(64) if fill == "zeros" else draw.randbytes(64)
        (tmp_path / "damaged.ckpt").write_bytes(data)
        assert refused(read, tmp_path / "damaged.ckpt") or same(read(tmp_path / "damaged.ckpt"))


def test_the_law_can_fail(whole, tmp_path):
    """What torch alone reads from a file with one flipped bit are other weights."""
    data = whole.read_bytes()
    position = data.index(STATE["weight"].numpy().tobytes()) + 40
    path = flip(whole, position, 3, tmp_path / "flipped.ckpt")
    assert not same(torch.load(path, weights_only=True)["state_dict"])


def written(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json", "merges.txt", "model"])
def test_what_stands_in_the_place_of_a_file_is_named(tmp_path, name):
    assert identify(written(tmp_path, name, b"")) == "empty"
    assert identify(written(tmp_path, name, POINTER)) == "a Git LFS pointer"
    for page in (b"<!DOCTYPE html>\n<html>", b"\n <html lang='en'>", b"\xef\xbb\xbf<!doctype HTML>"):
        assert identify(written(tmp_path, name, page)) == "an HTML page"


def test_a_cut_off_safetensors_file_is_measured(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    data = path.read_bytes()
    assert identify(path) is None
    header = 8 + int.from_bytes(data[:8], "little")
    for size in (header, len(data) // 2, len(data) - 1):
        assert identify(written(tmp_path, path.name, data[:size])) == f"cut off after {size} of {len(data)} bytes"
        with pytest.raises(
            ValueError, match=rf"a\.safetensors is cut off after {size} of {len(data)} bytes; download it again"
        ):
            map_state(path)
    assert (
        identify(written(tmp_path, path.name, data[: header - 1]))
        == f"cut off after {header - 1} of at least {header} bytes"
    )
    assert identify(written(tmp_path, path.name, data[:5])) == "cut off after 5 of at least 8 bytes"


def test_every_flipped_bit_of_a_safetensors_file_that_is_written_here_is_found(tmp_path):
    state = {**STATE, "mask": torch.tensor([True, False]), "half": torch.ones(3).bfloat16(), "one": torch.tensor(2.0)}
    path = tmp_path / "a.safetensors"
    write_state(path, state)
    for found in (map_state(path), unpack(pack(state), "a")):
        assert all(torch.equal(found[name], state[name]) for name in state)
    data, draw = path.read_bytes(), random.Random(0)
    assert unpack(data, "a").keys() == state.keys()
    for position in [*range(8 + int.from_bytes(data[:8], "little"), len(data), 13), *range(8, 400, 7)]:
        flipped = flip(path, position, draw.randrange(8), tmp_path / "flipped.safetensors")
        assert refused(map_state, flipped) or all(torch.equal(map_state(flipped)[name], state[name]) for name in state)
        if position > 700:
            assert refused(map_state, flipped)


def test_without_the_checksum_a_flipped_bit_is_not_found(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    assert not same(map_state(flip(path, path.stat().st_size - 1, 3, tmp_path / "flipped.safetensors")))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_a_cut_off_file_of_torch(whole, tmp_path, share):
    data = whole.read_bytes()
    size = int(share * len(data))
    path = written(tmp_path, "cut.bin", data[:size])
    assert identify(path) == f"cut off after {size} bytes"
    with pytest.raises(ValueError, match=r"cut\.bin is cut off"):
        map_state(path)


def test_a_cut_off_or_wrong_json_file(tmp_path):
    text = json.dumps({"a": ["word"] * 20, "b": {"c": 1}}).encode()
    assert identify(written(tmp_path, "a.json", text)) is None
    for size in (1, 5, 50, len(text) - 1):
        assert identify(written(tmp_path, "a.json", text[:size])) == f"cut off after {size} bytes"
    assert identify(written(tmp_path, "a.json", b'{"a": oops}')) == "no JSON (Expecting value in line 1, column 7)"
    assert identify(written(tmp_path, "a.json", b"\xff\xfe")) == "no JSON (UnicodeDecodeError)"
    with pytest.raises(ValueError, match=r"a\.json is no JSON .*; download it again"):
        read_json(str(tmp_path / "a.json"))


def test_text_in_the_place_of_weights_is_quoted(tmp_path):
    assert identify(written(tmp_path, "a.pt", b"Not found\n")) == "a text file that begins with 'Not found'"
    assert identify(written(tmp_path, "merges.txt", b"a b\n")) is None
    assert identify(written(tmp_path, "a.pt", "é".encode() * 700)) == f"a text file that begins with {'é' * 40!r}"


def test_whole_files_are_taken(whole, tmp_path):
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for path in (whole, tmp_path / "old.pt"):
        assert identify(path) is None
        assert same(map_state(path))


def test_a_pointer_is_fetched_with_git(tmp_path):
    with pytest.raises(ValueError, match=r"a\.pt is a Git LFS pointer; fetch the file itself with `git lfs pull`"):
        map_state(written(tmp_path, "a.pt", POINTER))
    with pytest.raises(FileNotFoundError, match=r"there is no file .*b\.pt"):
        map_state(tmp_path / "b.pt")
