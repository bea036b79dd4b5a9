"""Captions for training and for evaluation; no caption can be drawn by both functions."""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from rlr.toy.world.caption import NAMING, Spec, draw
from rlr.toy.world.motion import draw_clip

TRAINING_NAMING = (0.25, 0.25, 0.5)
"""As :data:`rlr.toy.world.caption.NAMING`, for training: a texture is learnt only from captions that name it."""


RAREST = 1000
"""Of so many captions, a filter keeps at least one."""


def training_spec(rng: np.random.Generator) -> Spec:
    """A random spec that training may use."""
    while not (spec := draw(rng, naming=TRAINING_NAMING)).for_training:
        pass
    return spec


def training_prompts(n: int, seed: int = 0, keep: Callable[[str], bool] | None = None) -> list[str]:
    """``n`` captions of training scenes, the k-th of which depends on ``seed`` and ``k`` only; those that ``keep`` keeps."""
    return _first(n, lambda k: training_spec(np.random.default_rng((seed, k))).caption, keep)


def held_out_prompts(n: int, seed: int = 0, keep: Callable[[str], bool] | None = None) -> list[str]:
    """``n`` captions that training never drew; every third names a pair of colour and shape it never saw together.

    ``rlr.toy.world.caption.parse(caption).novel`` tells which these are. Of them, those that ``keep`` keeps.
    """
    return _first(n, lambda k: _held_out(np.random.default_rng((seed, k)), novel=k % 3 == 0).caption, keep)


def _first(n: int, caption: Callable[[int], str], keep: Callable[[str], bool] | None) -> list[str]:
    # without a filter none is dropped, for no caption is empty
    captions = list(islice(filter(keep, map(caption, range(RAREST * n))), n))
    if len(captions) < n:
        raise ValueError(
            f"{type(keep).__name__} keeps {len(captions)} of {RAREST * n} captions of the built-in world, and {n} are asked "
            "for; give a filter that is less strict"
        )
    return captions


def _held_out(rng: np.random.Generator, novel: bool) -> Spec:
    while (spec := draw(rng)).novel != novel or spec.for_training:
        pass
    return spec


def training_clips(n: int, seed: int = 0, keep: Callable[[str], bool] | None = None) -> list[str]:
    """``n`` captions of training clips, the k-th of which depends on ``seed`` and ``k`` only; those that ``keep`` keeps."""
    return _first(n, lambda k: _clip(np.random.default_rng((seed, k)), TRAINING_NAMING, training=True), keep)


def held_out_clips(n: int, seed: int = 0, keep: Callable[[str], bool] | None = None) -> list[str]:
    """``n`` captions of clips whose pictures' captions training never drew, with whatever motion, as ``keep`` keeps."""
    return _first(n, lambda k: _clip(np.random.default_rng((seed, k)), NAMING, training=False), keep)


def _clip(rng: np.random.Generator, naming: Sequence[float], training: bool) -> str:
    while (clip := draw_clip(rng, naming)).for_training != training:
        pass
    return clip.caption
