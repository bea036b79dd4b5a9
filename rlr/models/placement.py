"""Where a text encoder and its embeddings are kept: beside the denoiser, on the CPU, or nowhere between two prompts."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlr.io.atomic import write_whole
from rlr.io.weights import freeze, pack, unpack

if TYPE_CHECKING:
    from rlr.models.text import PromptEncoder


class TextCache:
    """Embeddings in files, one a prompt; each file is whole at every moment, and several processes may share a folder.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).expanduser()

    def read(self, key: Sequence[str]) -> dict[str, Tensor] | None:
        """Returns the tensors of a key, or None if there is no whole file of it."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            return unpack(path.read_bytes(), str(path))
        except ValueError:
            # a file that was damaged since it was written is written anew
            return None

    def write(self, key: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Writes the tensors of a key."""
        write_whole(self._path(key), pack(tensors))

    def _path(self, key: Sequence[str]) -> Path:
        digest = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"


class TextPlacement(ABC):
    """Where a text encoder is kept and where it computes.

    Args:
        memory: How many prompts' embeddings are kept in memory; the one not used for longest goes first.
        folder: A folder for the embeddings, which later runs of the same model read; by default none is written.
    """

    def __init__(self, memory: int = 256, folder: str | None = None) -> None:
        self.memory = memory
        self.store = None if folder is None else TextCache(folder)

    @abstractmethod
    def place(self, owner: "PromptEncoder", load: Callable[[], nn.Module]) -> None:
        """Prepares a new prompt encoder; ``load`` returns its text encoder."""

    @abstractmethod
    def opened(self, owner: "PromptEncoder") -> Any:
        """Returns a context with the text encoder."""

    def device(self, owner: "PromptEncoder") -> torch.device:
        """Returns the device on which the text encoder computes; another device rounds otherwise."""
        return owner.anchor.device


class WithModel(TextPlacement):
    """The text encoder is a part of the model, and moves with it to another device."""

    def place(self, owner: "PromptEncoder", load: Callable[[], nn.Module]) -> None:
        owner.encoder = freeze(load())
        owner.anchor = owner.anchor.to(next(owner.encoder.parameters()).dtype)

    @contextmanager
    def opened(self, owner: "PromptEncoder") -> Iterator[Any]:
        yield owner.encoder


class OnCPU(TextPlacement):
    """The text encoder stays on the CPU and computes there; its embeddings go to the model's device."""

    def place(self, owner: "PromptEncoder", load: Callable[[], nn.Module]) -> None:
        # in a list, the module does not see it and does not move it
        owner.outside = [freeze(load())]

    @contextmanager
    def opened(self, owner: "PromptEncoder") -> Iterator[Any]:
        (encoder,) = owner.outside
        yield encoder

    def device(self, owner: "PromptEncoder") -> torch.device:
        return torch.device("cpu")


class OnDemand(TextPlacement):
    """The text encoder is loaded for prompts that have no embedding yet, computes on the model's device, and is freed.

    With a ``folder`` a later run on the same prompts loads no text encoder at all. Encode all prompts in one call, since
    each call with a new prompt reads the encoder's file.
    """

    def place(self, owner: "PromptEncoder", load: Callable[[], nn.Module]) -> None:
        owner.load = load

    @contextmanager
    def opened(self, owner: "PromptEncoder") -> Iterator[Any]:
        encoder = freeze(owner.load()).to(owner.anchor.device)
        try:
            yield encoder
        finally:
            del encoder
            if owner.anchor.device.type == "cuda":
                torch.cuda.empty_cache()
