"""Values in a file, found again by what they depend on."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from rlr.io.atomic import write_whole
from rlr.io.locks import locked

Key = Mapping[str, Any]
"""What a value depends on: plain JSON data, such as ``{"prompts": [...], "seed": 0}``."""


class Entry(NamedTuple):
    """A value and its key.

    Args:
        key: What the value depends on.
        value: Plain JSON data.
    """

    key: Key
    value: Any


def refuse(damage: str) -> NoReturn:
    """Raises a ``ValueError`` for a damaged line: for files that hold more than what can be computed again."""
    raise ValueError(damage)


def pass_over(damage: str) -> None:
    """Warns of a damaged line, which the next write drops: for caches."""
    warnings.warn(damage, stacklevel=2)


class KeyedFile:
    """Values by key in a JSON-lines file, one object with ``id``, ``key`` and ``value`` a line.

    The ``id`` is the SHA-256 of the key as canonical JSON, so the order of a key's items does not matter, while 1 and 1.0
    differ. Lines end at ``\\n`` alone; of lines with one key the last counts. The file is whole at every moment, and
    processes of one host that write at the same time lose none of their lines: a writer locks the folder, reads, and replaces.

    Args:
        path: The file; it need not exist.
        damaged: Called with a sentence for every line that cannot be read, :func:`refuse` or :func:`pass_over`.

    Example:
        >>> import tempfile
        >>> store = KeyedFile(Path(tempfile.mkdtemp()) / "scores.jsonl")
        >>> store.put({"prompt": "a cat", "seed": 0}, 0.5)
        >>> store.get({"seed": 0, "prompt": "a cat"})
        0.5
    """

    def __init__(self, path: Path, damaged: Callable[[str], None] = refuse) -> None:
        self.path, self.damaged = path, damaged
        self._read_at: tuple[int, ...] | None = None
        self._kept: dict[str, Entry] = {}

    def get(self, key: Key, default: Any = None) -> Any:
        """Returns the value of a key, or ``default``.

        Raises:
            ValueError: If the key is no JSON data, or a line is damaged and the file refuses that.
        """
        entry = self._entries().get(digest(key))
        return default if entry is None else entry.value

    def __contains__(self, key: Key) -> bool:
        return digest(key) in self._entries()

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries().values()))

    def __len__(self) -> int:
        return len(self._entries())

    def put(self, key: Key, value: Any) -> None:
        """Writes the value of a key in the place of an older one.

        Raises:
            OSError: If the file cannot be written; it is then unchanged.
            ValueError: If key or value are no JSON data, or a line is damaged and the file refuses that.
        """
        self.update([Entry(key, value)])

    def update(self, entries: Iterable[tuple[Key, Any]]) -> None:
        """Writes several values at once; raises as :meth:`put` does."""
        new = {digest(key): Entry(key, value) for key, value in entries}
        lines = {name: _format(name, entry, self.path) for name, entry in new.items()}
        if not lines:
            return
        with locked(self.path.parent):
            old = {name: _format(name, entry, self.path) for name, entry in self._entries().items() if name not in new}
            write_whole(self.path, "".join([*old.values(), *lines.values()]).encode())

    def remove(self, key: Key) -> None:
        """Removes a key and its value, if the file has them."""
        with locked(self.path.parent):
            name, entries = digest(key), self._entries()
            if name in entries:
                left = [_format(other, entry, self.path) for other, entry in entries.items() if other != name]
                write_whole(self.path, "".join(left).encode())

    def _entries(self) -> dict[str, Entry]:
        """What the file holds now; read again only if another file has taken its place or it was edited."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return {}
        seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if seen != self._read_at:
            self._kept, self._read_at = dict(self._read()), seen
        return self._kept

    def _read(self) -> Iterator[tuple[str, Entry]]:
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                yield _parse(line)
            except (ValueError, RecursionError) as error:
                self.damaged(
                    f"{self.path}, line {number}: expected an object with id, key and value as this program writes it, got "
                    f"{line[:60].decode(errors='replace')!r} ({str(error).splitlines()[0]}); mend or delete the line"
                )


def digest(key: Key) -> str:
    """Returns the SHA-256 of a key as canonical JSON, in hexadecimal digits.

    Raises:
        ValueError: If the key is no mapping from texts to JSON data.
    """
    try:
        text = json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a key of a KeyedFile: expected JSON data, got {str(key)[:80]} ({error})") from error
    if not isinstance(key, Mapping) or not all(isinstance(name, str) for name in key):
        raise ValueError(f"a key of a KeyedFile: expected a mapping from texts to JSON data, got {str(key)[:80]}")
    return hashlib.sha256(text.encode()).hexdigest()


def _format(name: str, entry: Entry, path: Path) -> str:
    content = {"id": name, "key": entry.key, "value": entry.value}
    try:
        line = json.dumps(content, ensure_ascii=False) + "\n"
        line.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a value of JSON data, got {str(entry.value)[:80]} ({error})") from error
    return line


def _parse(line: bytes) -> tuple[str, Entry]:
    content = json.loads(line.decode("utf-8"))
    if not isinstance(content, dict) or content.keys() != {"id", "key", "value"}:
        raise ValueError("other names")
    if not isinstance(content["key"], dict) or digest(content["key"]) != content["id"]:
        raise ValueError("its id is not that of its key")
    return content["id"], Entry(content["key"], content["value"])
