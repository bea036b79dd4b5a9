"""Files of weights: distinguished from other files, checked for damage, read as tensors alone, and written whole."""

import errno
import hashlib
import io
import json
import lzma
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor, nn

from rlr.io.atomic import replacing, write_whole
from rlr.io.file_kind import check_file, is_zip
from rlr.io.inventory import taken

CHECKSUM = "sha256"
"""The entry in the header of a safetensors file, a format without checksums, that holds the checksum of those written here."""

SMALL = 2**26
"""The most bytes of a file whose content is read even where no weights are needed."""

UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)
"""What the libraries raise for files that they cannot read."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Returns the state dict of a ``.safetensors`` file or one of :func:`torch.save`, in float32 and on the CPU.

    Within :func:`~rlr.io.inventory.without_weights` the tensors of a large file have shapes and no content.
    """
    state = map_state(path)
    if taken() is not None and path.stat().st_size > SMALL:
        state = {key: value.to("meta") for key, value in state.items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def map_state(path: Path) -> dict[str, Tensor]:
    """Returns the state dict of a ``.safetensors`` file or one of :func:`torch.save` as it is stored, on the CPU.

    A safetensors file of another program has no checksum: its size and header are checked, a flipped bit is not found.

    A file of :func:`torch.save` may hold the state dict itself, or have it under ``"state_dict"``, ``"model"`` or DeepSpeed's
    ``"module"``; it is read with ``weights_only``, and mapped into memory where its format allows.

    Raises:
        ValueError: If the file holds anything but tensors.
    """
    content = _load_tensors(path) if path.suffix == ".safetensors" else read_archive(path, mmap=True)
    for key in ("state_dict", "module", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no state dict; set the file of weights that the authors published")
    return content


def _load_tensors(path: Path) -> dict[str, Tensor]:
    check_file(path)
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error}); download it again") from error
    with path.open("rb") as file:
        _compare_checksum(state, file, str(path))
    return state


def pack(state: Mapping[str, Tensor]) -> bytes:
    """Returns a state dict as the content of a safetensors file with a checksum."""
    whole = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    # one entry: of several the library's order changes from call to call, and the same tensors give the same bytes
    return save(whole, {CHECKSUM: checksum(whole)})


def unpack(data: bytes, source: str) -> dict[str, Tensor]:
    """Returns the state dict of :func:`pack`.

    Args:
        data: The content of the file.
        source: The name of the file, for the message.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        state = load(data)
    except SafetensorError as error:
        raise ValueError(f"{source} is no safetensors file ({error}); write it again") from error
    _compare_checksum(state, io.BytesIO(data), source)
    return state


def checksum(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of names, types, shapes and values in hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {tuple(state[name].shape)}\n".encode())
        digest.update(state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _compare_checksum(state: Mapping[str, Tensor], file: BinaryIO, source: str) -> None:
    """Raises ValueError if the header of an open safetensors file states another checksum than that of its tensors."""
    length = int.from_bytes(file.read(8), "little")
    stated = json.loads(file.read(length)).get("__metadata__", {}).get(CHECKSUM)
    if stated is not None and stated != checksum(state):
        raise ValueError(
            f"{source} is damaged: its tensors do not have the checksum that it states; write or copy it again"
        )


def read_archive(path: Path, map_location: Any = "cpu", mmap: bool = False, remedy: str = "download it again") -> Any:
    """Returns the content of a file of :func:`torch.save`: tensors and plain values only, so that no code of it runs.

    Damage is found before anything is read: every record of the zip file must have the CRC-32 that the file states, which
    :func:`torch.load` does not compare. Files in torch's old format, without a zip, have no checksums.

    Args:
        path: The file.
        map_location: As for :func:`torch.load`.
        mmap: Whether to map the tensors of a zip file into memory instead of reading them.
        remedy: What a message advises to do.

    Raises:
        ValueError: If the file is something else, is damaged, or holds other Python objects.
    """
    check_file(path, remedy)
    zipped = is_zip(path)
    if zipped and (record := _damaged_record(path)):
        raise ValueError(f"{path} is damaged: {record} does not have the checksum that the file states; {remedy}")
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap and zipped)
    except (OSError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds Python objects besides tensors, or is damaged; such objects are not read, because they can run "
            f"code; {remedy}"
        ) from error
    # the unpickler raises whatever the bytes lead it to
    except Exception as error:
        raise ValueError(f"{path} is damaged or no file of PyTorch ({type(error).__name__}); {remedy}") from error


def _damaged_record(path: Path) -> str | None:
    """Returns the name of the first record of a zip file whose content does not have its CRC, or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except OSError as error:
        # a flipped offset leads outside the file; an error of the disk has a number
        if error.errno not in (None, errno.EINVAL):
            raise
        return "its directory"
    # damaged headers announce encryption, unknown compression, names in no encoding, and offsets that do not fit
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, struct.error, zlib.error, lzma.LZMAError):
        return "its directory"


def write_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes a state dict whole or not at all: as safetensors, or with another suffix by :func:`torch.save` as ``"state_dict"``.

    Both have checksums, which :func:`map_state` compares.
    """
    with replacing(path) as part:
        if path.suffix == ".safetensors":
            save_file(dict(state), part, {CHECKSUM: checksum(state)})
        else:
            # to the path and not through memory, since published files have gigabytes
            torch.save({"state_dict": dict(state)}, part)


def read_json(path: str) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Raises:
        ValueError: If the file is no JSON, empty, or cut off.
    """
    check_file(Path(path))
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object; download it again")
    return content


def build(make: Callable[[], nn.Module], state: dict[str, Tensor], source: Path) -> Any:
    """Builds a network without drawing random weights, and loads all weights of a state dict into it.

    Args:
        make: Returns the network.
        state: The weights by name.
        source: The file of the weights, for the message.

    Returns:
        The network, frozen and in eval mode.

    Raises:
        ValueError: If a weight is missing, foreign, or of another shape.
    """
    network = blank(make)
    compare(network.state_dict(), state, source, type(network).__name__)
    return fill(network, state)


def blank(make: Callable[[], nn.Module]) -> Any:
    """Returns a network whose weights have shapes but no values; torch's global generator keeps its state."""
    with init_empty_weights(include_buffers=False), torch.random.fork_rng(devices=[]):
        return make()


def compare(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: Path,
    kind: str,
    remedy: str = "set the file of this network",
) -> None:
    """Compares the names and shapes of the weights of a file with the expected ones.

    Args:
        expected: The weights of the network.
        state: The weights of the file.
        source: The file, for the message.
        kind: The name of the network, for the message.
        remedy: What the message advises to do.

    Raises:
        ValueError: If a weight is missing, foreign, or of another shape.
    """
    missing, foreign = expected.keys() - state.keys(), state.keys() - expected.keys()
    misshapen = {key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape}
    facts = (("is missing", missing), ("is foreign", foreign), ("has another shape", misshapen))
    stated = ", ".join(f"{min(keys)} {what} ({len(keys)} such)" for what, keys in facts if keys)
    if stated:
        raise ValueError(f"{source} does not fit {kind}: {stated}; {remedy}")


def fill(network: nn.Module, state: dict[str, Tensor], dtype: torch.dtype | None = None) -> Any:
    """Returns a network of :func:`blank` with the weights of a file, frozen and in eval mode.

    Args:
        network: The network.
        state: The weights by name.
        dtype: The type of the weights; by default the type in the file.
    """
    network.load_state_dict(state, assign=True)
    return freeze(network, dtype)


def freeze(network: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Returns the network frozen and in eval mode, with its weights copied to memory of torch's own, as ``dtype`` if set."""
    # readers of files leave weights anywhere in memory, and the last digits of a product depend on where: torch's own
    # allocations begin at multiples of 64 bytes, in every process
    for weight in network.parameters():
        weight.data = weight.data.to(dtype or weight.dtype, copy=True)
    return network.eval().requires_grad_(False)


def warn_unread(source: Path | str, kind: str, keys: Iterable[str]) -> None:
    """Warns of weights in a file that a network does not have; ``position_ids`` are no weights and are left out."""
    unread = sorted(key for key in keys if not key.endswith("position_ids"))
    if unread:
        named = ", ".join(unread[:3]) + (", …" if len(unread) > 3 else "")
        warnings.warn(
            f"{source} holds {len(unread)} weights that {kind} does not have and that are not read: {named}; check that it "
            "is the file of this network",
            stacklevel=3,
        )


def save_whole(path: Path, content: Any) -> None:
    """Writes tensors and plain values by :func:`torch.save`, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())
