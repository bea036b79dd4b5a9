"""The files of offline runs of Weights & Biases, which `wandb sync` would send, read back."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read(folder: Path) -> Iterator[Any]:
    """The records of the runs in the folder ``wandb`` of a folder, in the order in which the runs began."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        yield from (wandb_internal_pb2.Record.FromString(data) for data in records(path.read_bytes()))


def rows(folder: Path) -> list[dict[str, Any]]:
    """What was logged together, by name; of media and tables a dictionary."""
    return [_row(record.history.item) for record in read(folder) if record.HasField("history")]


def _row(items: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for item in items:
        name, *inner = list(item.nested_key) or [item.key]
        value = json.loads(item.value_json)
        row[name] = {**row.get(name, {}), "/".join(inner): value} if inner else value
    return row


def records(content: bytes, block: int = 32768) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: pieces of checksum, length, kind (whole, first, middle, last), data."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""
