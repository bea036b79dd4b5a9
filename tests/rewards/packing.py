"""Tensors in a small file, bit for bit.

A file is compressed by LZMA: a line of JSON that lists the tensors, and their bytes. Random floats hardly shrink, so each
tensor is kept in the smallest of some forms; the writer makes sure that the form gives the tensor back.
"""

import io
import json
import lzma
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN = np.float32([0.48145466, 0.4578275, 0.40821073]).reshape(3, 1, 1)
STD = np.float32([0.26862954, 0.26130258, 0.27577711]).reshape(3, 1, 1)


class Form(ABC):
    """How the numbers of an array are kept."""

    def fits(self, array: np.ndarray) -> bool:
        """Whether the form gives the array back, bit for bit."""
        return self._may(array) and self.read(self.write(array), array.dtype, array.shape).tobytes() == array.tobytes()

    @abstractmethod
    def write(self, array: np.ndarray) -> bytes: ...

    @abstractmethod
    def read(self, data: bytes, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray: ...

    @abstractmethod
    def _may(self, array: np.ndarray) -> bool:
        """Whether the array is of the form's kind."""


class Picture(Form):
    """An image of bytes, as a PNG."""

    def write(self, array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    def read(self, data: bytes, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(data)))

    def _may(self, array: np.ndarray) -> bool:
        return array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3))


class Levels(Form):
    """Floats that come of bytes, as these bytes."""

    def write(self, array: np.ndarray) -> bytes:
        return np.nan_to_num(255 * self._to_01(array)).round().clip(0, 255).astype(np.uint8).tobytes()

    def read(self, data: bytes, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
        return self._from_01(np.frombuffer(data, np.uint8).reshape(shape).astype(np.float32) / np.float32(255))

    def _may(self, array: np.ndarray) -> bool:
        return array.dtype == np.float32 and array.ndim >= 3 and array.shape[-3] == 3

    @abstractmethod
    def _to_01(self, array: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _from_01(self, array: np.ndarray) -> np.ndarray: ...


class Normalised(Levels):
    """What CLIP's networks read."""

    def _to_01(self, array: np.ndarray) -> np.ndarray:
        return array * STD + MEAN

    def _from_01(self, array: np.ndarray) -> np.ndarray:
        return (array - MEAN) / STD


class Overdone(Levels):
    """Pixels in [-1.15, 1.15]."""

    def _to_01(self, array: np.ndarray) -> np.ndarray:
        return (array / np.float32(1.15) + 1) / 2

    def _from_01(self, array: np.ndarray) -> np.ndarray:
        return (array * 2 - 1) * np.float32(1.15)


class Planes(Form):
    """Anything: the first bytes of all numbers, then the second ones, … for like bytes shrink together."""

    def write(self, array: np.ndarray) -> bytes:
        return np.frombuffer(array.tobytes(), np.uint8).reshape(-1, array.itemsize).T.tobytes()

    def read(self, data: bytes, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
        planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
        return np.frombuffer(planes.T.tobytes(), dtype).reshape(shape)

    def _may(self, array: np.ndarray) -> bool:
        return True


FORMS: dict[str, Form] = {
    "picture": Picture(),
    "normalised": Normalised(),
    "overdone": Overdone(),
    "planes": Planes(),
}


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Returns the file of the tensors; of those that are alike only the first is kept."""
    entries: list[dict[str, Any]] = []
    parts: dict[tuple[Any, ...], tuple[int, str, bytes]] = {}
    for key, tensor in tensors.items():
        array = np.ascontiguousarray(tensor.numpy()).reshape(tensor.shape)
        content = (array.dtype.str, array.shape, array.tobytes())
        if content not in parts:
            form = next(name for name, form in FORMS.items() if form.fits(array))
            parts[content] = (len(parts), form, FORMS[form].write(array))
        number, form, _ = parts[content]
        entries.append({"key": key, "dtype": array.dtype.str, "shape": array.shape, "form": form, "part": number})
    header = {"tensors": entries, "parts": [len(data) for *_, data in parts.values()]}
    body = b"".join(data for *_, data in parts.values())
    return lzma.compress(json.dumps(header).encode() + b"\n" + body, preset=9 | lzma.PRESET_EXTREME)


def unpack(file: bytes) -> dict[str, Tensor]:
    """Returns the tensors of a file of :func:`pack`."""
    first, _, body = lzma.decompress(file).partition(b"\n")
    header = json.loads(first)
    ends = np.cumsum(header["parts"]).tolist()
    parts = [body[end - size : end] for end, size in zip(ends, header["parts"], strict=True)]
    return {entry["key"]: _tensor(entry, parts[entry["part"]]) for entry in header["tensors"]}


def _tensor(entry: Mapping[str, Any], data: bytes) -> Tensor:
    array = FORMS[entry["form"]].read(data, np.dtype(entry["dtype"]), entry["shape"])
    return torch.from_numpy(array.copy())
