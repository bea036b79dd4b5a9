"""Captions for training and for evaluation; no caption is in both."""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from rlr.toy.world.caption import NAMING, Spec, draw
from rlr.toy.world.motion import draw_video_spec

TRAINING_NAMING = (0.25, 0.25, 0.5)
"""Like :data:`rlr.toy.world.caption.NAMING`, for training: a model learns a texture only from captions that name it."""


RAREST = 1000
"""A filter must keep at least one of this many captions on average."""


def training_spec(rng: np.random.Generator) -> Spec:
    """Returns a random spec for training."""
    while not (spec := draw(rng, naming=TRAINING_NAMING)).for_training:
        pass
    return spec


def training_prompts(n: int, seed: int = 0, keep: Callable[[str], bool] | None = None) -> list[str]:
    """Returns the first ``n`` captions of training scenes that ``keep`` keeps; the k-th depends on ``seed`` and ``k`` only."""
    return _first(n, lambda k: training_spec(np.random.default_rng((seed, k))).caption, keep)


def held_out_prompts(n: int, seed: int = 0, keep: Callable[[str], bool] | None = None) -> list[str]:
    """Returns the first ``n`` held-out captions that ``keep`` keeps.

    Every third caption names a pair of color and shape that is not in training; ``parse(caption).novel`` is true for these.
    """
    return _first(n, lambda k: _held_out(np.random.default_rng((seed, k)), novel=k % 3 == 0).caption, keep)


def _first(n: int, caption: Callable[[int], str], keep: Callable[[str], bool] | None) -> list[str]:
    # filter(None, ...) drops empty texts, and no caption is empty
    captions = list(islice(filter(keep, map(caption, range(RAREST * n))), n))
    if len(captions) < n:
        raise ValueError(
            f"{type(keep).__name__} keeps {len(captions)} of {RAREST * n} captions of the built-in world, expected {n}; "
            "use a less strict filter"
        )
    return captions


def _held_out(rng: np.random.Generator, novel: bool) -> Spec:
    while (spec := draw(rng)).novel != novel or spec.for_training:
        pass
    return spec


def training_video_prompts(n: int, seed: int = 0, keep: Callable[[str], bool] | None = None) -> list[str]:
    """Returns the first ``n`` captions of training videos that ``keep`` keeps; the k-th depends on ``seed`` and ``k`` only."""
    return _first(n, lambda k: _video_prompt(np.random.default_rng((seed, k)), TRAINING_NAMING, training=True), keep)


def held_out_video_prompts(n: int, seed: int = 0, keep: Callable[[str], bool] | None = None) -> list[str]:
    """Returns the first ``n`` captions that ``keep`` keeps of videos whose image captions are held out, with any motion."""
    return _first(n, lambda k: _video_prompt(np.random.default_rng((seed, k)), NAMING, training=False), keep)


def _video_prompt(rng: np.random.Generator, naming: Sequence[float], training: bool) -> str:
    while (clip := draw_video_spec(rng, naming)).for_training != training:
        pass
    return clip.caption
