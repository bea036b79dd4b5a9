"""Rewards of the built-in world: exact checks, and small preference models."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.toy.rewards.dynamic import DynamicCheck as DynamicCheck
    from rlr.toy.rewards.exact import ExactCheck as ExactCheck
    from rlr.toy.rewards.hpsv2 import TinyHPSv2 as TinyHPSv2
    from rlr.toy.rewards.motion import MotionCheck as MotionCheck
    from rlr.toy.rewards.pickscore import TinyPickScore as TinyPickScore
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
