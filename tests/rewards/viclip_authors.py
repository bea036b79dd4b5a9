"""ViCLIP as its authors' code computes it, which the package ``vbench`` has a copy of, on small random weights."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import open_clip
import torch
from torch import Tensor, nn

from rlr.rewards import ViCLIPSizes
from tests.rewards.random_viclip import SMALL, randomize

NAME = "viclip_of_vbench"


def rearrange(x: Tensor, pattern: str, **sizes: int) -> Tensor:
    """Stands in for einops, which VBench does not require: the two patterns of the video tower."""
    if pattern == "(b t) n m -> (b n) t m":
        return x.unflatten(0, (sizes["b"], sizes["t"])).transpose(1, 2).flatten(0, 1)
    assert pattern == "(b n) t m -> b (n t) m"
    return x.unflatten(0, (sizes["b"], -1)).flatten(1, 2)


@contextmanager
def authors_modules(cache: Path) -> Iterator[SimpleNamespace]:
    """Within, the modules of VBench's copy are there, without the rest of VBench.

    Args:
        cache: An empty folder, where they look for the vocabulary.
    """
    spec = find_spec("vbench")
    assert spec is not None
    package = ModuleType(NAME)
    package.__path__ = [str(Path(str(spec.origin)).parent / "third_party" / "ViCLIP")]
    words = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    (cache / "ViCLIP").mkdir()
    (cache / "ViCLIP" / words.name).write_bytes(words.read_bytes())
    stubs: dict[str, Any] = {
        NAME: package,
        "einops": SimpleNamespace(rearrange=rearrange),
        "vbench": ModuleType("vbench"),
        "vbench.utils": SimpleNamespace(CACHE_DIR=str(cache)),
    }
    with mock.patch.dict(sys.modules, stubs), warnings.catch_warnings(action="ignore"):
        names = ("viclip", "viclip_vision", "viclip_text", "simple_tokenizer")
        yield SimpleNamespace(**{name: import_module(f"{NAME}.{name}") for name in names})


def build(modules: SimpleNamespace, sizes: ViCLIPSizes = SMALL) -> Any:
    """Returns the authors' model of other sizes than theirs, with random weights, in eval mode."""
    model = modules.viclip.ViCLIP.__new__(modules.viclip.ViCLIP)
    nn.Module.__init__(model)
    model.max_txt_l, model.masking_prob = sizes.length, 0.9
    model.vision_encoder = modules.viclip_vision.VisionTransformer(
        sizes.image, sizes.patch, sizes.width, sizes.layers, sizes.heads, sizes.dimension, num_frames=sizes.frames
    )
    text = sizes.text_width, sizes.text_heads, sizes.text_layers
    model.text_encoder = modules.viclip_text.CLIP_TEXT(sizes.dimension, sizes.length, sizes.vocabulary, *text, 0)
    model.temp = nn.Parameter(torch.ones([]) / 100)
    return randomize(model)
