"""The dimensions of VBench that need no annotation of the prompt, and what each needs."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file that a dimension loads.

    Args:
        path: Its place in the folder of weights.
        source: Where it is published.
        sha256: The published SHA-256 in hexadecimal, or its first digits; empty where none is known.
    """

    path: str
    source: str
    sha256: str = ""


@dataclass(frozen=True)
class Dimension:
    r"""One property of a video that VBench judges.

    Args:
        name: VBench's name.
        title: The name in tables.
        weight: The weight in the paper's weighted average.
        files: What it loads.
        least_frames: The fewest frames that give a meaningful score.
        least_side: The fewest pixels of height and width that do.
        rate: How many frames a second it looks at, where it skips others.
        pickled: Whether its file may hold Python objects besides tensors, so that loading it trusts it.
    """

    name: str
    title: str
    weight: float = 0.0
    files: tuple[File, ...] = ()
    least_frames: int = 2
    least_side: int = 1
    rate: float = math.inf
    pickled: bool = False

    def frames_seen(self, frames: int, fps: float) -> int:
        r"""Returns how many of :math:`F` frames are looked at: every :math:`\max(1, \mathrm{round}(fps / rate))`-th."""
        return math.ceil(frames / max(1, round(fps / self.rate)))

    def objection(self, frames: int, height: int, width: int, fps: float) -> str | None:
        """Returns why a video cannot be judged, or None; VBench would crash or give a wrong number."""
        seen = self.frames_seen(frames, fps)
        if seen < self.least_frames:
            skipped = "" if seen == frames else f", of which {self.name} looks at {seen}"
            return f"has {frames} frames at {fps:g} a second{skipped}, and {self.name} needs {self.least_frames}"
        if min(height, width) < self.least_side:
            side = f"{self.least_side} × {self.least_side}"
            return f"has frames of {width} × {height} pixels, and {self.name} needs at least {side}"
        return None


DINO = (
    File(
        "dino_model/facebookresearch_dino_main/hubconf.py", "https://github.com/facebookresearch/dino (the repository)"
    ),
    File(
        "dino_model/dino_vitbase16_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
    ),
)
VIT_B_32 = File(
    "clip_model/ViT-B-32.pt",
    "https://openaipublic.azureedge.net/clip/models/"
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
)
VIT_L_14 = File(
    "clip_model/ViT-L-14.pt",
    "https://openaipublic.azureedge.net/clip/models/"
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
)
AMT = File("amt_model/amt-s.pth", "https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth")
RAFT = File(
    "raft_model/models/raft-things.pth",
    "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip (within)",
)
AESTHETIC = File(
    "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
    "https://github.com/LAION-AI/aesthetic-predictor/blob/main/sa_0_4_vit_l_14_linear.pth?raw=true",
)
MUSIQ = File(
    "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
    "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
    # part of the name, as torch.hub reads it
    "358bb6af",
)

SIX = (
    Dimension("subject_consistency", "Subject Consistency", 1.0, DINO),
    Dimension("background_consistency", "Background Consistency", 1.0, (VIT_B_32,)),
    # every other frame is interpolated from its neighbors: two pairs of frames. AMT and RAFT compare features of an
    # eighth of the size, halved three times more; below 128 pixels, once padded, that leaves one, and their output is NaN
    Dimension("motion_smoothness", "Motion Smoothness", 1.0, (AMT,), least_frames=3, least_side=113, pickled=True),
    # a video is dynamic if round(N / 4) of its flows are large: with fewer than three frames, always
    Dimension("dynamic_degree", "Dynamic Degree", 0.5, (RAFT,), least_frames=3, least_side=121, rate=8.0),
    Dimension("aesthetic_quality", "Aesthetic Quality", 1.0, (AESTHETIC, VIT_L_14), least_frames=1),
    Dimension("imaging_quality", "Imaging Quality", 1.0, (MUSIQ,), least_frames=1),
)
"""Those of the paper's Table 3, in its order."""

TEMPORAL_FLICKERING = Dimension("temporal_flickering", "Temporal Flickering")
"""Outside the average, and the only one without a network."""

DIMENSIONS = {dimension.name: dimension for dimension in (*SIX, TEMPORAL_FLICKERING)}
"""All by name."""


def named(names: Iterable[str]) -> tuple[Dimension, ...]:
    """Returns the dimensions of these names, each once.

    Raises:
        ValueError: If no dimension has a name.
    """
    return tuple(_named(dict.fromkeys(names)))


def _named(names: Iterable[str]) -> Iterator[Dimension]:
    for name in names:
        if name not in DIMENSIONS:
            raise ValueError(
                f"there is no dimension {name!r} that can be judged here; there are {', '.join(DIMENSIONS)}"
            )
        yield DIMENSIONS[name]


def with_free(dimensions: Iterable[Dimension]) -> tuple[Dimension, ...]:
    """Returns the dimensions and, after them, those others that need no file."""
    chosen = tuple(dimensions)
    return *chosen, *(other for other in DIMENSIONS.values() if not other.files and other not in chosen)
