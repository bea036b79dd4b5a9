r"""The protocol of a reward's server and its clients: JSON, with images as PNG files in base64.

================  ===========================================================  ==========================================
request           asks                                                         answer
================  ===========================================================  ==========================================
``GET /health``                                                                ``{"label", "scales", "higher_is_better",
                                                                               "version"}``
``GET                                                                          the description in OpenAPI 3.1
/openapi.json``
``POST /score``   ``{"prompts": [p, …], "samples": [PNG, …]}``, or for videos  ``{"scores": [1.5, null, …]}``, null where
                  ``"samples": [[PNG, …], …]``, a list of frames each          a score is not finite
================  ===========================================================  ==========================================

A request that is refused is answered ``{"error": "one sentence"}``. Pixels are sent as 8-bit numbers, so the score is that
of the rounded image. Where the server asks for a token, each request has the header ``Authorization: Bearer TOKEN``.
"""

import base64
import binascii
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlr.io.image_file import FAULTS
from rlr.rewards.networks.preprocessing import to_bytes


class Refused(ValueError):
    """A request that cannot be served, now or later.

    Args:
        sentence: Why.
        status: The HTTP status of the answer.
    """

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """The largest request that is served, and how long it may take.

    Args:
        samples: The number of samples.
        pixels: The pixels of all frames of all samples together, counted before an image is decoded.
        bytes: The bytes of the request.
        files: The number of images, those of all frames of all samples together.
        characters: The characters of a prompt.
        held: The bytes of all requests together that wait or are scored.
        patience: The seconds within which the body of a request must arrive.
        seconds: The seconds that a request may wait for its turn and be scored, together.
    """

    samples: int = 64
    pixels: int = 2**24
    bytes: int = 128 * 2**20
    files: int = 4096
    characters: int = 10_000
    held: int = 512 * 2**20
    patience: float = 60.0
    seconds: float = 600.0


def png(image: Tensor) -> str:
    r"""Returns the PNG file, in base64, of an image of bytes, with shape :math:`(3, H, W)`."""
    buffer = io.BytesIO()
    # higher compression takes longer than a local network does
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def pack(samples: Tensor, prompts: Sequence[str]) -> dict[str, Any]:
    r"""Returns the request to score pixels in [0, 1], with shape :math:`(B, 3, H, W)` or :math:`(B, F, 3, H, W)`."""
    images = to_bytes(samples)
    files = [[png(frame) for frame in video] if video.ndim == 4 else png(video) for video in images]
    return {"prompts": list(prompts), "samples": files}


def unpack(body: bytes | bytearray, limits: Limits) -> tuple[Tensor, list[str]]:
    r"""Returns the pixels in [0, 1], in float32, and the prompts of a request.

    Raises:
        Refused: If the request is malformed or beyond a limit.
    """
    # a body of nothing but brackets and commas would take twenty times its size in memory
    if body.count(b",") > limits.files + limits.samples * (limits.characters + 1):
        raise Refused(f"the request holds more than {limits.files} images; send fewer a request", 413)
    prompts, samples = _read(body)
    if not prompts or len(prompts) != len(samples):
        raise Refused(f"got {len(prompts)} prompts and {len(samples)} samples; send as many of each, at least one")
    if len(samples) > limits.samples:
        raise Refused(f"got {len(samples)} samples, and {limits.samples} are served at once; send fewer a request", 413)
    if max(map(len, prompts)) > limits.characters:
        raise Refused(f"a prompt has more than {limits.characters} characters; send a shorter one", 413)
    counts = {len(sample) if isinstance(sample, list) else None for sample in samples}
    if len(counts) > 1 or 0 in counts:
        raise Refused("samples must be images, or videos of one number of frames; send them apart")
    files = [file for sample in samples for file in (sample if isinstance(sample, list) else [sample])]
    if len(files) > limits.files:
        raise Refused(f"got {len(files)} images, and {limits.files} are served at once; send fewer a request", 413)
    images = torch.stack(list(_images(files, limits)))
    (frames,) = counts
    return (images if frames is None else images.unflatten(0, (-1, frames))), prompts


def _read(body: bytes | bytearray) -> tuple[list[str], list[Any]]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("the request is no JSON; send an object with prompts and samples") from error
    prompts, samples = (message.get(key) if isinstance(message, dict) else None for key in ("prompts", "samples"))
    if not (isinstance(prompts, list) and isinstance(samples, list) and all(isinstance(p, str) for p in prompts)):
        raise Refused("the request is no object with prompts, a list of strings, and samples, a list of PNG files")
    if any("\ud800" <= letter <= "\udfff" for prompt in prompts for letter in prompt):
        raise Refused("a prompt holds half a surrogate pair, which is no text; send whole characters")
    return prompts, samples


def _images(files: Sequence[Any], limits: Limits) -> Iterator[Tensor]:
    first, pixels = None, 0
    for number, file in enumerate(files):
        try:
            image = _open(file)
            pixels += image.width * image.height
            if pixels > limits.pixels:
                raise Refused(f"the images have more than {limits.pixels} pixels in all; send fewer a request", 413)
            first = first or image.size
            if image.size != first:
                raise Refused(f"image {number} is {image.size}, and the first {first}; send sizes apart")
            yield torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        except Refused:
            raise
        except FAULTS as error:
            raise Refused(f"image {number}: expected a whole PNG file; send an 8-bit RGB one in base64") from error


def _open(file: Any) -> Image.Image:
    """Opens a PNG file without decoding it."""
    try:
        data = base64.b64decode(file, validate=True) if isinstance(file, str) else b""
    except binascii.Error:
        data = b""
    image = Image.open(io.BytesIO(data), formats=["PNG"])
    if image.mode != "RGB":
        raise ValueError(f"the mode {image.mode} is not served")
    return image
