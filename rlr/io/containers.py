"""Where a video file says that it ends: ISO mp4 and mov, Matroska and WebM, AVI, GIF, and the packets of MPEG-TS."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
"""The identifiers of the two outermost elements of Matroska (RFC 8794, RFC 9559)."""

ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""The boxes that an mp4 (ISO/IEC 14496-12) or an older QuickTime file can begin with."""


GIF = (b"GIF87a", b"GIF89a")
"""The first bytes of a GIF (CompuServe, 1990)."""

PACKET, SYNC = 188, 0x47
"""The bytes of a packet of MPEG-TS, and its first byte (ISO/IEC 13818-1)."""


STARTS = (EBML, b"RIFF", b"OggS", b"FLV", b"\x30\x26\xb2\x75", b"\x00\x00\x01", b"\x00\x00\x00\x01", *GIF)
"""The first bytes of further containers (Ogg, FLV, ASF), and of a stream of MPEG or H.264 without one."""


class Part(NamedTuple):
    """An outermost part of a container.

    Args:
        kind: Its name in the format.
        end: The position behind its last byte, as the container states it.
    """

    kind: str
    end: int


def missing_end(file: Path) -> Part | None:
    """Returns the first part that ends behind the end of the file, or None.

    None means that the file is whole, or that its format does not say where it ends: live streams do not, and of MPEG-TS only a
    cut within a packet is seen.
    """
    size = file.stat().st_size
    return next((part for part in parts(file) if part.end > size), None)


def check_kind(file: Path) -> None:
    """Raises a ``ValueError`` for a file that does not begin as a video does.

    The libraries also read playlists, texts that name other files of this machine and addresses, whatever the suffix is.
    """
    with file.open("rb") as opened:
        head = opened.read(8)
        known = head.startswith(STARTS) or head[4:] in ISO_BOXES or _is_transport(opened)
    if not known:
        found = "it is empty" if not head else f"it begins with {head!r}"
        raise ValueError(f"{file} is damaged or no video ({found}); write it again, or convert it to mp4")


def is_iso(file: Path) -> bool:
    """Whether a file is an mp4 or a mov."""
    with file.open("rb") as opened:
        return opened.read(8)[4:] in ISO_BOXES


def parts(file: Path) -> Iterator[Part]:
    """Yields the outermost parts of a file whose lengths are known; nothing for other formats."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(8)
        if head[:6] in GIF:
            yield _blocks(opened, size)
            return
        if _is_transport(opened):
            # whole packets do not say whether more should follow
            yield from [Part("last packet", (size // PACKET + 1) * PACKET)] if size % PACKET else []
            return
        read = _box if head[4:] in ISO_BOXES else {EBML: _element, b"RIFF": _chunk}.get(head[:4])
        at = 0
        while read and at < size:
            opened.seek(at)
            part = read(opened, at, size)
            if part is None:
                return
            yield part
            at = max(part.end, at + 1)


def _box(opened: BinaryIO, at: int, size: int) -> Part:
    head = opened.read(16)
    length = int.from_bytes(head[:4])
    # 1: the length is too large for 32 bits and follows; 0: the box is the last one
    length = {0: size - at, 1: int.from_bytes(head[8:])}.get(length, length)
    return Part(head[4:8].decode("latin-1"), at + max(length, 8))


def _element(opened: BinaryIO, at: int, size: int) -> Part | None:
    """An identifier of 4 bytes, and a length whose first byte gives its number of bytes."""
    identifier, first = opened.read(4), opened.read(1)
    if identifier not in (EBML, SEGMENT) or not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    digits = bytes([first[0] & (0xFF >> width)]) + opened.read(width - 1)
    # all ones: the length is unknown
    if int.from_bytes(digits) == (1 << 7 * width) - 1:
        return None
    kind = "EBML header" if identifier == EBML else "Segment"
    return Part(kind, at + 4 + width + int.from_bytes(digits))


def _chunk(opened: BinaryIO, at: int, size: int) -> Part | None:
    head = opened.read(8)
    length = int.from_bytes(head[4:], "little")
    # 0: written by a program that was not able to go back
    return Part("RIFF", at + 8 + length + length % 2) if head[:4] == b"RIFF" and length else None


def _is_transport(opened: BinaryIO) -> bool:
    """Whether a file begins with packets of MPEG-TS."""
    opened.seek(0)
    starts = opened.read(3 * PACKET)[::PACKET]
    return len(starts) == 3 and set(starts) == {SYNC}


def _blocks(opened: BinaryIO, size: int) -> Part:
    """The blocks of a GIF up to its trailer; where the file is cut, the end of the block that is cut."""
    opened.seek(10)
    at = 13 + _colors(opened.read(1))
    while at < size:
        opened.seek(at)
        kind = opened.read(1)
        if kind not in b"!,":
            # the trailer; or something that no reader takes for a block
            return Part("trailer", at + 1)
        if kind == b"!":
            at += 2
        else:
            opened.seek(at + 9)
            at += 11 + _colors(opened.read(1))
        at = _chain_end(opened, at, size)
    return Part("next block", at + 1)


def _colors(flags: bytes) -> int:
    """Returns the bytes of the table of colors that some flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _chain_end(opened: BinaryIO, at: int, size: int) -> int:
    """Returns the position behind a chain of blocks of 1 to 255 bytes, each after its length, which a length of 0 ends."""
    while at < size:
        opened.seek(at)
        length = opened.read(1)[0]
        at += 1 + length
        if not length:
            break
    return at
