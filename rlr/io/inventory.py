"""What an object would read: it is built without weights, and each source is noted, with whether it is on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

TOKENIZER = "tokenizer"
"""The part of a source that is its tokenizer."""


@dataclass(frozen=True)
class Source:
    """A source of weights, settings or prompts.

    Args:
        name: A file, a folder, or a name on the hub.
        part: The file or the part of the folder; empty for all of it.
        here: Whether it is on this machine.
        dataset: Whether the name is that of a data set on the hub.
    """

    name: str
    part: str
    here: bool
    dataset: bool = False

    @property
    def remedy(self) -> str:
        """The command that gets it, or what to do where no command can."""
        path = Path(self.name).expanduser()
        if path.exists() or path.is_absolute() or self.name.count("/") != 1 or self.name.startswith("."):
            return f"put it into {self.name}, or set another path"
        kind = " --repo-type dataset" if self.dataset else ""
        return f"hf download{kind} {self.name}{self._files}"

    @property
    def _files(self) -> str:
        """What the command says of the files, if not all are needed."""
        if self.part == TOKENIZER:
            return " --include '*.json' '*.txt'"
        return f" {self.part}" if Path(self.part).suffix else ""


@dataclass
class Inventory:
    """The sources that were asked for, each once.

    Args:
        sources: The sources, in the order in which they were asked for.
    """

    sources: list[Source] = field(default_factory=list)

    def note(self, name: str, part: str, here: bool, dataset: bool = False) -> None:
        """Notes a source; one that was missing once stays missing."""
        known = [s for s in self.sources if (s.name, s.part) == (name, part)]
        if not known:
            self.sources.append(Source(name, part, here, dataset))
        elif known[0].here and not here:
            self.sources[self.sources.index(known[0])] = Source(name, part, here, dataset)

    @property
    def missing(self) -> list[Source]:
        """The sources that are not on this machine."""
        return [source for source in self.sources if not source.here]


_TAKEN: ContextVar[Inventory | None] = ContextVar("inventory", default=None)


@contextmanager
def without_weights() -> Iterator[Inventory]:
    """Within, networks are built as their configurations say, on torch's device ``meta``, and large files are not read."""
    inventory = Inventory()
    token = _TAKEN.set(inventory)
    try:
        yield inventory
    finally:
        _TAKEN.reset(token)


def taken() -> Inventory | None:
    """Returns the inventory that is being made, or None where weights are read."""
    return _TAKEN.get()


def note(name: str, part: str, here: bool, dataset: bool = False) -> None:
    """Notes a source in the inventory that is being made, if there is one."""
    if (inventory := taken()) is not None:
        inventory.note(name, part, here, dataset)


def on_meta(network: Any) -> Any:
    """Returns a network with all of its tensors on torch's device ``meta``."""
    # diffusers' own method of the name refuses some moves
    return nn.Module.to(network, "meta")
