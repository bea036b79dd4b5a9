"""A file of values by key is whole, loses no line of concurrent writers, and reports its damaged lines."""

import doctest
import json
import math
import multiprocessing
import os
import threading
import warnings

import pytest

from rlr.io import keyed_file
from rlr.io.keyed_file import KeyedFile, digest, pass_over

KEY = {"prompts": ["a cat", "日本 \u2028 x"], "seed": 0, "reward": {"class": "JPEG", "scale": 1.5}}


@pytest.fixture
def store(tmp_path):
    return KeyedFile(tmp_path / "new" / "store.jsonl")


def test_what_is_put_is_found_by_another_reader(store):
    assert store.get(KEY) is None
    assert store.get(KEY, 3) == 3
    assert KEY not in store
    store.put(KEY, {"scores": [1.25, None, "\u2028\x85\n"]})
    other = KeyedFile(store.path)
    assert other.get(KEY) == {"scores": [1.25, None, "\u2028\x85\n"]}
    assert KEY in other
    assert [entry.key for entry in other] == [KEY]


def test_a_key_is_its_content(store):
    store.put(KEY, 1)
    assert store.get(dict(reversed(KEY.items()))) == 1
    assert store.get(json.loads(json.dumps(KEY))) == 1
    for other in ({**KEY, "seed": 1}, {**KEY, "seed": 0.0}, {**KEY, "seed": "0"}, {**KEY, "more": None}):
        assert store.get(other) is None
    # the published value of the hash of {"a":1}
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_the_last_value_counts_and_takes_the_place_of_the_older(store):
    store.update([({"k": 1}, "a"), ({"k": 2}, "b")])
    store.put({"k": 1}, "c")
    assert [(entry.key["k"], entry.value) for entry in store] == [(2, "b"), (1, "c")]
    with store.path.open("ab") as file:
        file.write(store.path.read_bytes().split(b"\n")[0].replace(b'"b"', b'"d"') + b"\n\n")
    assert store.get({"k": 2}) == "d"
    assert len(store) == 2


def test_values_that_are_not_finite_come_back(store):
    store.put({"k": 1}, [math.nan, math.inf])
    value = KeyedFile(store.path).get({"k": 1})
    assert math.isnan(value[0])
    assert value[1] == math.inf


def test_what_is_removed_is_gone(store):
    store.update([({"k": k}, k) for k in range(3)])
    store.remove({"k": 1})
    store.remove({"k": 7})
    assert [entry.value for entry in KeyedFile(store.path)] == [0, 2]


def test_nothing_is_written_for_nothing(store):
    store.update([])
    assert not store.path.exists()


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ({"k": object()}, "expected JSON data"),
        ({"k": math.nan}, "expected JSON data"),
        ({1: "k"}, "expected a mapping from texts"),
        (["k"], "expected a mapping from texts"),
    ],
)
def test_keys_that_are_no_json_mapping_are_refused(store, key, says):
    for call in (store.get, lambda key: store.put(key, 1), store.remove):
        with pytest.raises(ValueError, match=says):
            call(key)


@pytest.mark.parametrize("value", [object(), {"a": {1, 2}}, "\ud800"])
def test_values_that_cannot_be_written_leave_the_file(store, value):
    store.put({"k": 1}, "old")
    before = store.path.read_bytes()
    with pytest.raises(ValueError, match=r"store\.jsonl: expected a value of JSON data"):
        store.put({"k": 1}, value)
    assert store.path.read_bytes() == before


LINE = {"id": digest({"k": 1}), "key": {"k": 1}, "value": 1}
DAMAGED = {
    "cut": json.dumps(LINE)[:-3].encode(),
    "no JSON": b"nothing of the kind",
    "no object": b"[1, 2]",
    "other names": json.dumps({**LINE, "more": 1}).encode(),
    "another key": json.dumps({**LINE, "key": {"k": 2}}).encode(),
    "no mapping": json.dumps({**LINE, "key": 3}).encode(),
    "no UTF-8": b'{"id": "\xff"}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_is_stated(store, line):
    store.update([({"k": 5}, "a"), ({"k": 6}, "b")])
    first, second = store.path.read_bytes().splitlines()
    store.path.write_bytes(b"\n".join([first, line, second]) + b"\n")
    for call in (lambda: store.get({"k": 5}), lambda: store.put({"k": 7}, "c")):
        with pytest.raises(ValueError, match=r"store\.jsonl, line 2: expected an object") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
    assert line in store.path.read_bytes()


def test_a_cache_passes_over_damaged_lines_and_drops_them(store):
    store.put({"k": 5}, "a")
    with store.path.open("ab") as file:
        file.write(b"half a li")
    cache = KeyedFile(store.path, pass_over)
    with pytest.warns(UserWarning, match=r"store\.jsonl, line 2: .* got 'half a li'"):
        assert cache.get({"k": 5}) == "a"
    cache.put({"k": 6}, "b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [entry.value for entry in KeyedFile(store.path)] == ["a", "b"]


def test_a_failed_write_leaves_the_file(store, monkeypatch):
    store.put({"k": 1}, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="the disk is full; make room"):
            store.put({"k": 2}, "new")
    assert [entry.value for entry in KeyedFile(store.path)] == ["old"]
    assert [path.name for path in store.path.parent.iterdir()] == ["store.jsonl"]
    store.put({"k": 2}, "new")
    assert len(store) == 2


def add(path, writer, count):
    store = KeyedFile(path)
    for number in range(count):
        store.put({"writer": writer, "number": number}, writer * count + number)


def test_concurrent_processes_lose_no_line(tmp_path):
    path, context = tmp_path / "store.jsonl", multiprocessing.get_context("fork")
    children = [context.Process(target=add, args=(path, writer, 25)) for writer in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert sorted(entry.value for entry in KeyedFile(path)) == list(range(100))
    assert [file.name for file in tmp_path.iterdir()] == ["store.jsonl"]


def test_concurrent_threads_lose_no_line(tmp_path):
    path = tmp_path / "store.jsonl"
    threads = [threading.Thread(target=add, args=(path, writer, 25)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.value for entry in KeyedFile(path)) == list(range(100))


def test_the_law_of_writers_can_fail(tmp_path, monkeypatch):
    """Without the lock, the second of two writers that have both read writes over the first."""
    path = tmp_path / "store.jsonl"
    write, inside = keyed_file.write_whole, []

    def interrupted(target, data):
        if not inside:
            inside.append(True)
            monkeypatch.setattr(keyed_file, "locked", lambda folder: threading.RLock())
            KeyedFile(path).put({"k": 2}, "lost")
        write(target, data)

    monkeypatch.setattr(keyed_file, "write_whole", interrupted)
    monkeypatch.setattr(keyed_file, "locked", lambda folder: threading.RLock())
    KeyedFile(path).put({"k": 1}, "kept")
    assert [entry.value for entry in KeyedFile(path)] == ["kept"]


def test_the_example_runs():
    result = doctest.testmod(keyed_file)
    assert result.failed == 0
    assert result.attempted == 4
