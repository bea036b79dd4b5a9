"""Files that lie: real payloads, which leave a mark where their code runs."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save


class Code:
    """Makes a folder where it is unpickled.

    Args:
        mark: The folder.
    """

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


STATE = {"weight": torch.arange(6.0).view(2, 3), "state_dict": torch.ones(2)}


def saved(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def tarred(code: Code) -> bytes:
    """A file of torch's first format, whose three members are pickles."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps(code)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(files: Mapping[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def script(code: Code) -> bytes:
    """A file in the layout of TorchScript."""
    record = pickle.dumps(code)
    files = {
        "data.pkl": record,
        "constants.pkl": record,
        "version": b"3\n",
        "code/__torch__.py": b"op_version_set = 1\n",
    }
    return zipped({f"archive/{name}": data for name, data in files.items()})


def torch_files(mark: Path) -> dict[str, bytes]:
    """Files of ``.ckpt``, ``.pt``, ``.pth`` and ``.bin``."""
    code = Code(mark)
    whole = saved(STATE)
    return {
        "zip": saved({"state_dict": STATE, "config": code}),
        "zip of a module": saved({"state_dict": {"weight": code}}),
        "legacy": saved({"state_dict": STATE, "config": code}, zipped=False),
        "raw pickle": pickle.dumps(code),
        "raw pickle of protocol 0": pickle.dumps(code, 0),
        "tar": tarred(code),
        "TorchScript": script(code),
        "pickle behind tensors": whole + pickle.dumps(code),
        "cut off": whole[: len(whole) // 2],
        "a zip bomb": zipped({"archive/data.pkl": bytes(2**22)}, compression=zipfile.ZIP_DEFLATED),
        "names that lead out": zipped({"../../escaped": pickle.dumps(code), "archive/data.pkl": pickle.dumps(code)}),
        **nothing(),
    }


def nothing() -> dict[str, bytes]:
    """What stands in the place of any file."""
    return {
        "empty": b"",
        "a page": b"<!DOCTYPE html>\n<html><body>404</body></html>",
        "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n",
        "NUL": bytes(512),
    }


def safetensors_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors_files(mark: Path) -> dict[str, bytes]:
    """Files of ``.safetensors`` with wrong headers."""
    eight = bytes(8)
    return {
        "a pickle": pickle.dumps(Code(mark)),
        "a zip with code": saved({"weight": Code(mark)}),
        "a length beyond the file": safetensors_file(b"{}", length=2**63),
        "all ones as length": safetensors_file(b"{}", length=2**64 - 1),
        "no JSON": safetensors_file(b"{" * 100),
        "deep JSON": safetensors_file(b'{"a":' * 3000),
        "a list": safetensors_file([]),
        "a number": safetensors_file(5),
        "no offsets": safetensors_file({"weight": {}}, eight),
        "an unknown type": safetensors_file({"weight": tensor(dtype="OBJECT")}, eight),
        "offsets beyond the data": safetensors_file({"weight": tensor(offsets=(0, 80))}, eight),
        "offsets that run back": safetensors_file({"weight": tensor(offsets=(8, 0))}, eight),
        "negative offsets": safetensors_file({"weight": tensor(offsets=(-8, 0))}, eight),
        "offsets that overlap": safetensors_file({"a": tensor(), "b": tensor()}, eight),
        "offsets that are texts": safetensors_file({"weight": tensor(offsets="08")}, eight),
        "a shape that does not fit": safetensors_file({"weight": tensor(shape=(2**40, 2**40))}, eight),
        "a negative shape": safetensors_file({"weight": tensor(shape=(-2,))}, eight),
        "bytes behind the tensors": safetensors_file({"weight": tensor()}, eight + b"more"),
        "metadata that are a list": safetensors_file({"__metadata__": [1], "weight": tensor()}, eight),
        "metadata that are numbers": safetensors_file({"__metadata__": {"a": 1}, "weight": tensor()}, eight),
        "not UTF-8": safetensors_file(b'{"\xff": 1}'),
        "cut off": save({"weight": torch.ones(99)})[:-7],
        **nothing(),
    }


def yaml_files(mark: Path) -> dict[str, bytes]:
    """Configs that build objects, and some that never end."""
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join([f'*{chr(97 + k)}'] * 9)}]\n" for k in range(9)
    )
    return {
        "object/apply": f"model: !!python/object/apply:os.mkdir ['{mark}']\n".encode(),
        "object/new": f"model: !!python/object/new:os.mkdir ['{mark}']\n".encode(),
        "object": b"model: !!python/object:pathlib.Path {}\n",
        "name": b"model: !!python/name:os.mkdir\n",
        "module": b"model: !!python/module:os\n",
        "a tag of one's own": b"model: !mine {a: 1}\n",
        "an alias bomb": bomb.encode(),
        "an alias within itself": b"model: &a [*a]\n",
        "deep lists": b"model: " + b"[" * 3000 + b"]" * 3000,
        "deep mappings": b"{a: " * 3000 + b"1" + b"}" * 3000,
        "not UTF-8": b"model: \xe9\n",
        "UTF-16": "model: 1\n".encode("utf-16"),
        "a tab": b"model:\n\ta: 1\n",
        "a key twice": b"model: 1\nmodel: 2\n",
        "a list as key": b"? [a]\n: 1\n",
        "a list": b"[1, 2]\n",
        "a pickle": pickle.dumps(Code(mark)),
        "binary data": b"model: !!binary 'not base64%'\n",
        "an impossible date": b"model: 2026-13-45\n",
        "a number of a million digits": b"model: " + b"9" * 1_000_000,
        **nothing(),
    }


def json_files(mark: Path) -> dict[str, bytes]:
    """Documents of JSON, each of another type than the reader expects, or none at all."""
    return {
        "a pickle": pickle.dumps(Code(mark)),
        "deep lists": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "a number of many digits": b"[" + b"1" * 5000 + b"]",
        "cut off": b'{"prompt": "a ca',
        "not UTF-8": b'{"prompt": "\xff"}',
        "half a surrogate pair": b'{"prompt": "\\ud800", "tag": "x", "stages": ["\\ud800"]}',
        "a prompt that is a number": b'{"prompt": 5}',
        "a prompt that is a list": b'{"prompt": ["a"], "stages": "abc"}',
        "a list of lists": b"[[1], [2]]",
        "null": b"null",
        "a text": b'"text"',
        "a key twice": b'{"prompt": "a", "prompt": "b"}',
        **nothing(),
    }


def text_files(mark: Path) -> dict[str, bytes]:
    """Files of prompts, one a line."""
    return {
        "a pickle": pickle.dumps(Code(mark)),
        "not UTF-8": b"a cat\n\xff\n",
        "UTF-16": "a cat\n".encode("utf-16"),
        "one line with returns": b"a\rb\rc\n",
        "blanks alone": b" \n\t\n",
        **nothing(),
    }


def csv_files(mark: Path) -> dict[str, bytes]:
    """Tables of prompts."""
    return {
        "a pickle": pickle.dumps(Code(mark)),
        "an open quote": b'prompt\n"abc\ndef\n',
        "a quote that ends early": b'prompt\n"abc"def\n',
        "no such column": b"text\na cat\n",
        "a column twice": b"prompt,prompt\na,b\n",
        "more fields than columns": b"prompt\na,b\n",
        "not UTF-8": b"prompt\n\xff\n",
        **nothing(),
    }


def parquet_files(mark: Path) -> dict[str, bytes]:
    """Tables of prompts in parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"prompt": ["a cat", "a dog"] * 50, "n": list(range(100))}), buffer)
    whole = buffer.getvalue()
    numbers = io.BytesIO()
    pq.write_table(pa.table({"prompt": [1, 2]}), numbers)
    return {
        "a pickle": pickle.dumps(Code(mark)),
        "cut off": whole[: len(whole) // 2],
        "its ends alone": b"PAR1" + whole[-8:],
        "a length beyond the file": whole[:-8] + b"\xff\xff\xff\x7f" + b"PAR1",
        "numbers": numbers.getvalue(),
        **nothing(),
    }


def gzip_files(mark: Path) -> dict[str, bytes]:
    """Merges of a tokenizer."""
    whole = gzip.compress(b"a b\n" * 1000)
    return {
        "a pickle": pickle.dumps(Code(mark)),
        "a bomb": gzip.compress(bytes(2**27)),
        "cut off": whole[:-9],
        "another checksum": whole[:-8] + bytes(8),
        **nothing(),
    }


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, rows: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def image_files(mark: Path) -> dict[str, bytes]:
    """Images that are bombs, or start a program."""
    text = b"comment\x00\x00" + zlib.compress(bytes(2**26))
    postscript = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n({mark}) (w) file\n%%EOF\n"
    return {
        "a pickle": pickle.dumps(Code(mark)),
        "60000 × 60000": png(60_000, 60_000),
        "2147483647 × 2147483647": png(2**31 - 1, 2**31 - 1),
        "9000 × 9000": png(9000, 9000, rows=bytes(100)),
        "a bomb of text": png(8, 8, chunk(b"zTXt", text)),
        "a bomb of a profile": png(8, 8, chunk(b"iCCP", b"icc\x00\x00" + zlib.compress(bytes(2**26)))),
        "no rows": png(8, 8),
        "PostScript": postscript.encode(),
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "cut off": png(8, 8, rows=bytes(range(200)))[:80],
        **nothing(),
    }


def video_files(mark: Path) -> dict[str, bytes]:
    """Videos that name other files, or announce what they do not hold."""
    return {
        "a pickle": pickle.dumps(Code(mark)),
        "a list of files": b"ffconcat version 1.0\nfile secret.mp4\n",
        "a playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "a manifest": b"<?xml version='1.0'?><MPD><Period><BaseURL>secret.mp4</BaseURL></Period></MPD>",
        "a session": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "a box beyond the file": struct.pack(">I", 2**31 - 1) + b"ftypisom",
        "a box of 64 bits": struct.pack(">I", 1) + b"ftyp" + struct.pack(">Q", 2**63),
        "boxes of nothing": (struct.pack(">I", 8) + b"free") * 50,
        "Matroska without an end": b"\x1a\x45\xdf\xa3" + b"\x01" + b"\xff" * 7,
        "an image": png(2, 2, rows=bytes(14)),
        **nothing(),
    }


Payloads = Callable[[Path], dict[str, bytes]]
"""Returns files by name; their code, where they hold any, makes the folder that is given."""
