"""A file is whole or not there, and what a killed writer leaves is removed by the next one."""

import ast
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from rlr.io.atomic import replacing, write_whole
from rlr.io.weights import map_state, save_whole, write_state

ROOT = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_block_that_raises_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "file"
    write_whole(path, b"old")

    def fail():
        with replacing(path) as part:
            part.write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == b"old"
    assert names(path.parent) == ["file"]


def die_while_writing(path):
    with replacing(path) as part:
        part.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def dead_pid():
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join()
    return child.pid


STATE = {"w": torch.ones(2)}
WRITERS = {
    "write_whole": lambda path: write_whole(path, b"new"),
    "write_state": lambda path: write_state(path, STATE),
    "save_whole": lambda path: save_whole(path, STATE),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("name", ["last.ckpt", "a.safetensors", "step=3.ckpt", "[x]*.pt"])
def test_the_part_of_a_killed_writer_is_removed_by_the_next(tmp_path, name, write):
    path = tmp_path / name
    child = multiprocessing.get_context("fork").Process(target=die_while_writing, args=(path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert names(tmp_path) == [f"{name}.{child.pid}.part"]
    write(path)
    assert names(tmp_path) == [name]


def test_only_the_parts_of_dead_writers_of_this_file_are_removed(tmp_path):
    dead, alive = dead_pid(), os.getppid()
    kept = {
        f"last.ckpt.{alive}.part",  # its writer runs
        "last.ckpt.1.part",  # its writer runs and belongs to another user, where tests run without root
        f"other.ckpt.{dead}.part",
        f"my.last.ckpt.{dead}.part",
        f"lastXckpt.{dead}.part",
        f"last.ckpt.{dead}.part.txt",
        f"last.ckpt.x{dead}.part",
        f"last.ckpt.0{dead}.part",
        "last.ckpt..part",
        "last.ckpt.part",
        "last.ckpt.99999999999999999999.part",
    }
    for name in {*kept, f"last.ckpt.{dead}.part"}:
        (tmp_path / name).touch()
    write_whole(tmp_path / "last.ckpt", b"new")
    assert set(names(tmp_path)) == kept | {"last.ckpt"}


def test_weights_are_written_whole(tmp_path, monkeypatch):
    for name in ("a.safetensors", "a.pt"):
        path = tmp_path / name
        write_state(path, STATE)

        def full(descriptor):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            with pytest.raises(OSError, match="the disk is full; make room"):
                write_state(path, {"w": torch.zeros(2)})
        assert torch.equal(map_state(path)["w"], STATE["w"])
    assert names(tmp_path) == ["a.pt", "a.safetensors"]


def test_there_is_one_writer_of_whole_files():
    """No other file moves a temporary file into place."""
    files = [path for top in ("rlr", "experiments") for path in (ROOT / top).rglob("*.py")]
    assert len(files) > 100
    moving = {
        str(path.relative_to(ROOT))
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and (node.value.id, node.attr) in {("os", "replace"), ("os", "rename"), ("shutil", "move")}
        )
        or (isinstance(node, ast.Attribute) and node.attr == "NamedTemporaryFile")
    }
    assert moving == {"rlr/io/atomic.py"}
