"""Weights from a file, a folder or the hub: found, checked against what the authors published, loaded as tensors alone."""

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlr.io.atomic import replacing, write_whole


@dataclass(frozen=True)
class Published:
    """A file as its authors publish it.

    Args:
        name: The name of the file.
        algorithm: What ``digest`` was computed by, such as ``"md5"``; empty where no checksum is known.
        digest: The checksum, in hexadecimal digits.
    """

    name: str
    algorithm: str = ""
    digest: str = ""

    def verify(self, path: Path) -> None:
        """Compares the checksum of a file.

        Raises:
            ValueError: If it differs.
        """
        if not self.digest:
            return
        with path.open("rb") as file:
            found = hashlib.file_digest(file, self.algorithm).hexdigest()
        if found != self.digest:
            raise ValueError(
                f"{path} is not the {self.name} that its authors published ({self.algorithm} {found}, theirs is "
                f"{self.digest}); download it again, or pass verify=False if the weights are meant to be others"
            )


def find(source: str, files: Iterable[Published], verify: bool = True) -> Path:
    """Returns the path of a weights file, downloading it with a progress bar where it is on the hub.

    Args:
        source: A file, a folder, or a hub id.
        files: What the file may be called in a folder or on the hub, and the checksums; the first is the hub's.
        verify: Whether a file with a published name must have the published checksum.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a checksum differs.
    """
    known = {file.name: file for file in files}
    path = _locate(source, list(known))
    if verify and path.name in known:
        known[path.name].verify(path)
    return path


def _locate(source: str, names: list[str]) -> Path:
    path = Path(source).expanduser()
    candidates = [path, *(path / name for name in names)]
    return next((candidate for candidate in candidates if candidate.is_file()), None) or _download(source, names[0])


def _download(source: str, name: str) -> Path:
    # here, so that local files need no hub
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{name} is not to be had from {source!r}; give the path of the file, a folder that holds it, or a hub "
            "id while there is a network"
        ) from error


def read_state(path: Path) -> dict[str, Tensor]:
    """Returns the state dict of a ``.safetensors`` file or one of :func:`torch.save`, in float32 and on the CPU."""
    return {key: value.float() if value.is_floating_point() else value for key, value in map_state(path).items()}


def map_state(path: Path) -> dict[str, Tensor]:
    """Returns the state dict of a ``.safetensors`` file or one of :func:`torch.save` as it is stored, on the CPU.

    A file of :func:`torch.save` may hold the state dict itself, or have it under ``"state_dict"`` or DeepSpeed's
    ``"module"``; it is read with ``weights_only``, and mapped into memory where its format allows.

    Raises:
        ValueError: If the file holds anything but tensors.
    """
    content = _load_tensors(path) if path.suffix == ".safetensors" else _load(path)
    for key in ("state_dict", "module"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no state dict; give the file of weights that the authors published")
    return content


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error}); download it again") from error


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read as a file of tensors alone (it is damaged, or holds code); download it again, or "
            "save its state dict anew"
        ) from error


def write_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes a state dict, whole or not at all: to ``.safetensors``, or else as :func:`torch.save` under ``"state_dict"``."""
    with replacing(path) as part:
        if path.suffix == ".safetensors":
            save_file(dict(state), part)
        else:
            # to the path and not through memory, since published files have gigabytes
            torch.save({"state_dict": dict(state)}, part)


def read_json(path: str) -> dict[str, Any]:
    """Returns the object that a JSON file holds."""
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content


def build(make: Callable[[], nn.Module], state: dict[str, Tensor], source: Path) -> Any:
    """Builds a network without drawing its weights, and gives it those of a file: all of them, and no others.

    Args:
        make: Returns the network.
        state: Its weights.
        source: The file that they came from, for the message.

    Returns:
        The network, frozen and in eval mode.

    Raises:
        ValueError: If a weight is missing, foreign, or of another shape.
    """
    network = blank(make)
    compare(network.state_dict(), state, source, type(network).__name__)
    return fill(network, state)


def blank(make: Callable[[], nn.Module]) -> Any:
    """Returns a network whose weights have shapes and no values; the global generator stays as it was."""
    with init_empty_weights(include_buffers=False), torch.random.fork_rng(devices=[]):
        return make()


def compare(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: Path,
    kind: str,
    remedy: str = "give the file of this very network",
) -> None:
    """Compares names and shapes of the weights of a file with those of what is called ``kind``.

    Raises:
        ValueError: If a weight is missing, foreign, or of another shape.
    """
    missing, foreign = expected.keys() - state.keys(), state.keys() - expected.keys()
    misshapen = {key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape}
    facts = (("is missing", missing), ("is foreign", foreign), ("has another shape", misshapen))
    told = ", ".join(f"{min(keys)} {what} ({len(keys)} such)" for what, keys in facts if keys)
    if told:
        raise ValueError(f"{source} does not fit {kind}: {told}; {remedy}")


def fill(network: nn.Module, state: dict[str, Tensor], dtype: torch.dtype | None = None) -> Any:
    """Returns a network of :func:`blank` with the weights of a file, copied once; frozen, and in eval mode.

    Args:
        network: The network.
        state: Its weights.
        dtype: Their type; by default that of the file.
    """
    network.load_state_dict(state, assign=True)
    return freeze(network, dtype)


def freeze(network: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Returns the network frozen and in eval mode, its weights copied to where torch puts them; ``dtype`` is their type."""
    # readers of files leave weights anywhere in memory, and the last digits of a product depend on where: torch's own
    # allocations begin at multiples of 64 bytes, in every process
    for weight in network.parameters():
        weight.data = weight.data.to(dtype or weight.dtype, copy=True)
    return network.eval().requires_grad_(False)


def tell_unread(source: Path | str, kind: str, keys: Iterable[str]) -> None:
    """Warns of weights in a file that a network does not have, but for the numbers of positions, which are no weights."""
    unread = sorted(key for key in keys if not key.endswith("position_ids"))
    if unread:
        named = ", ".join(unread[:3]) + (", …" if len(unread) > 3 else "")
        warnings.warn(
            f"{source} holds {len(unread)} weights that {kind} does not have and that are not read: {named}; check that it "
            "is the file of this very network",
            stacklevel=3,
        )


def save_whole(path: Path, content: Any) -> None:
    """Writes tensors and plain values with ``torch.save``; the file is at every moment the old one or the new one, whole."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())
