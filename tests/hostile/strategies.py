"""Random hostile input: values, texts, mutated files, mutated configs and what a reward may return."""

import copy
import json
from collections.abc import Callable
from typing import Any

import torch
import yaml
from hypothesis import strategies as st

from tests.cli.conftest import CONFIG

LETTERS = st.characters(exclude_categories=())
"""All code points, halves of surrogate pairs included."""
SIGNS = st.sampled_from("{}[]:,&*#?|-<>=!%@`'\"\\\n\t\r\0\x1b\x85\u2028\u202e ~/.$+0")
TEXTS = st.text(LETTERS | SIGNS, max_size=40)
WORDS = st.sampled_from(
    [
        *(
            "null",
            "true",
            "~",
            "${",
            "${model}",
            "${oc.env:HOME}",
            "${seed_everything}",
            "../../x",
            "/etc/passwd",
            ".nan",
            "1e400",
        ),
        *(
            "os.system",
            "subprocess.Popen",
            "builtins.eval",
            "rlr.cli.main",
            "torch.load",
            "RLR",
            "Prompts",
            "DDIM",
            "Tiny",
        ),
        *(
            "!!python/object/apply:os.getcwd []",
            "&a [*a]",
            "<<",
            "class_path",
            "init_args",
            "x" * 300,
            "",
            "0x1F",
            "1_000",
            "-0",
        ),
    ]
)
NUMBERS = st.sampled_from(
    [-1, 0, 1, 2, 3, 7, 0.5, -0.5, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 10**30]
)
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | TEXTS | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated(draw: Callable[..., Any], content: bytes) -> bytes:
    """A file with some bytes changed, put in, taken out, doubled, or cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.integers(0, 5))
        some = draw(st.binary(min_size=1, max_size=16))
        length = draw(st.integers(0, 64))
        if kind == 0 and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == 1:
            data[at : at + len(some)] = some
        elif kind == 2:
            data[at:at] = some
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            del data[at:]
        else:
            data[at:at] = data[at : at + length]
    return bytes(data)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values inside of a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, item in items for place in places(item, (*way, key)))]


@st.composite
def altered(draw: Callable[..., Any], value: Any, values: Any = VALUES) -> Any:
    """Plain data in which some values are others, are gone, or stand under other keys."""
    found = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        way = draw(st.sampled_from(places(found)))
        if not way:
            return draw(values) if draw(st.integers(0, 5)) == 0 else found
        owner = found
        for key in way[:-1]:
            owner = owner[key]
        kind = draw(st.integers(0, 4))
        if kind == 0:
            del owner[way[-1]]
        elif kind == 1 and isinstance(owner, dict):
            owner[draw(WORDS | TEXTS)] = owner.pop(way[-1])
        else:
            owner[way[-1]] = draw(values)
    return found


BASE = yaml.safe_load(CONFIG)


@st.composite
def configs(draw: Callable[..., Any]) -> bytes:
    """Configs near a valid one: other values, or other text."""
    if draw(st.booleans()):
        # every document of JSON is one of YAML
        text = json.dumps(draw(altered(BASE)), ensure_ascii=draw(st.booleans()), default=str)
        return text.encode("utf-8", "surrogatepass")
    return draw(mutated(CONFIG.encode()))


def jsonl(values: Any) -> st.SearchStrategy[bytes]:
    lines = st.lists(values.map(lambda value: json.dumps(value, default=str)) | TEXTS, max_size=5)
    return lines.map(lambda found: "\n".join(found).encode("utf-8", "surrogatepass"))


PROMPTS = {
    ".txt": st.lists(TEXTS, max_size=6).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")),
    ".jsonl": jsonl(st.fixed_dictionaries({"prompt": TEXTS | VALUES}) | TEXTS | VALUES),
    ".csv": st.lists(TEXTS, max_size=6).map(
        lambda cells: ("prompt\n" + ",".join(cells)).encode("utf-8", "surrogatepass")
    ),
}
"""Files of prompts by their suffixes."""


@st.composite
def rewards(draw: Callable[..., Any]) -> Any:
    """What a function returns as the reward of two samples."""
    kinds = [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.bool,
        torch.complex64,
        torch.uint8,
    ]
    shape = draw(st.sampled_from([(2,), (2, 1), (1,), (), (3,), (0,), (2, 2)]))
    tensor = torch.zeros(shape, dtype=draw(st.sampled_from(kinds)))
    if tensor.numel() and tensor.is_floating_point():
        tensor.view(-1)[0] = draw(st.floats(width=16))
    array = tensor.tolist() if tensor.dtype == torch.bfloat16 else tensor.numpy()
    pairs = st.lists(st.floats() | st.integers() | st.none(), min_size=2, max_size=2)
    return draw(st.sampled_from([tensor, tensor.tolist(), array, tensor.to_sparse()]) | VALUES | pairs)
