"""Clips as files: H.264 in mp4, written whole or not at all, and read back."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlr.io.atomic import write_whole

SLOWEST, FASTEST = 1, 240
"""The least and the greatest number of frames a second."""


@dataclass(frozen=True)
class Video:
    r"""A clip that was read from a file.

    Args:
        frames: Pixels from 0 to 255, uint8, with shape :math:`(F, 3, H, W)`.
        fps: Frames a second.
    """

    frames: Tensor
    fps: float


def write_video(path: str | Path, frames: Tensor, fps: float, crf: int = 8) -> None:
    r"""Writes a clip as H.264 in mp4 (yuv420p, BT.601), which every browser plays.

    The same frames give the same bytes, on any number of cores. The file appears whole, in place of an older one; if
    anything fails, the older one stays.

    Args:
        path: Where to; missing folders are made.
        frames: Pixels with shape :math:`(F, 3, H, W)`, floats in [0, 1] or uint8, with even :math:`H` and :math:`W`.
        fps: Frames a second, from 1 to 240.
        crf: The constant rate factor of x264, from 0 to 51. At the default of 8 what compression loses is less than
            what the colours lose by their half resolution.

    Raises:
        ModuleNotFoundError: If PyAV is not installed.
        RuntimeError: If its FFmpeg has no encoder for H.264.
        ValueError: If the frames, ``fps`` or ``crf`` cannot be written.
    """
    if not (math.isfinite(fps) and SLOWEST <= fps <= FASTEST):
        raise ValueError(f"{path} cannot have {fps} frames a second; give an fps from {SLOWEST} to {FASTEST}")
    if not 0 <= crf <= 51:
        raise ValueError(f"{path} cannot have the crf {crf}; give one from 0 (the best) to 51")
    write_whole(Path(path), _encode(_bytes(frames, path), Fraction(fps).limit_denominator(1001), crf))


def read_video(path: str | Path) -> Video:
    """Reads all frames of a video file, with decord where it is installed and PyAV where not.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If neither is installed.
        ValueError: If the file is cut short, damaged or no video.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no video {path} (looked for at {file.absolute()}); check the path")
    _check_whole(file)
    # decord has no way to read some narrow videos, so what it refuses PyAV judges
    return _read_decord(file) or _read_av(file)


def _bytes(frames: Tensor, path: str | Path) -> Tensor:
    """Returns the frames as uint8 with shape (F, H, W, 3) on the CPU."""
    if frames.ndim != 4 or frames.shape[1] != 3 or not frames.numel():
        raise ValueError(f"{path} cannot hold frames of shape {tuple(frames.shape)}; give (F, 3, H, W), one at least")
    height, width = frames.shape[2:]
    if height % 2 or width % 2:
        raise ValueError(
            f"{path} cannot have {width} × {height} pixels, for H.264 halves the colours' resolution; "
            "crop or resize to an even width and height"
        )
    frames = frames.detach().permute(0, 2, 3, 1).cpu()
    return (frames if frames.dtype == torch.uint8 else _quantised(frames, path)).contiguous()


def _quantised(frames: Tensor, path: str | Path, slack: float = 1e-2) -> Tensor:
    frames = frames.float()
    low, high = (value.item() for value in frames.aminmax())
    # written so that NaN fails too
    if not (low >= -slack and high <= 1 + slack):
        raise ValueError(f"{path} cannot hold pixels in [{low:.3g}, {high:.3g}]; map them to [0, 1], or give uint8")
    return (frames.clamp(0, 1) * 255).round().byte()


def _encode(frames: Tensor, rate: Fraction, crf: int) -> bytes:
    av = _av()
    if "libx264" not in av.codecs_available:
        raise RuntimeError(
            "the FFmpeg of the installed PyAV has no libx264, which writes H.264; install the wheel from PyPI: "
            "pip install --force-reinstall --only-binary av av"
        )
    buffer = io.BytesIO()
    # bitexact: no version strings in the container
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        _tag(stream.codec_context)
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _tag(context: Any) -> None:
    # the number of threads changes the bytes
    context.thread_count = 1
    # SMPTE 170M in the numbers of H.264's table E-5, and limited range: players that are not told guess by the size
    context.color_primaries = context.color_trc = context.colorspace = 6
    context.color_range = 1


def _check_whole(file: Path) -> None:
    """Raises if an mp4 ends before its last box does: decoders would return the frames that are left."""
    size = file.stat().st_size
    for kind, end in _boxes(file):
        if end > size:
            raise ValueError(
                f"the video {file} is cut short: its box {kind!r} ends at byte {end} and the file at {size}; "
                "write or copy it again"
            )


def _boxes(file: Path) -> Iterator[tuple[str, int]]:
    """Yields kind and end of each outermost box of ISO/IEC 14496-12; nothing for other formats."""
    end, size = 0, file.stat().st_size
    with file.open("rb") as opened:
        if opened.read(8)[4:] != b"ftyp":
            return
        while end < size:
            opened.seek(end)
            head = opened.read(16)
            length = int.from_bytes(head[:4])
            # 1: the length is too large for 32 bits and follows; 0: the box is the last one
            length = {0: size - end, 1: int.from_bytes(head[8:])}.get(length, length)
            end += max(length, 8)
            yield head[4:8].decode("latin-1"), end


def _read_decord(file: Path) -> Video | None:
    """Returns None where decord is missing or cannot read the file."""
    try:
        import decord
    except ImportError:
        return None
    try:
        reader = decord.VideoReader(str(file))
        frames = reader.get_batch(range(len(reader)))
        # another program may have asked decord for tensors
        frames = frames if isinstance(frames, Tensor) else torch.from_numpy(frames.asnumpy())
    except (RuntimeError, ValueError, AssertionError, decord.DECORDError):
        return None
    return Video(frames.permute(0, 3, 1, 2).contiguous(), float(reader.get_avg_fps()))


def _read_av(file: Path) -> Video:
    av = _av()
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
            expected, fps = stream.frames, float(stream.average_rate or 0)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{file} is damaged or no video ({error}); write it again, or convert it to mp4") from error
    if not frames or len(frames) < expected:
        raise ValueError(f"only {len(frames)} of the {expected} frames of the video {file} decode; write it again")
    return Video(torch.stack(frames).permute(0, 3, 1, 2).contiguous(), fps)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ModuleNotFoundError(f"mp4 files need PyAV, which does not import ({error}); pip install av") from error
    return av
