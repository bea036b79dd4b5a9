"""Rewards of the built-in world: exact checks, and small preference models."""

from rlr.toy.rewards.dynamic import DynamicCheck as DynamicCheck
from rlr.toy.rewards.exact import ExactCheck as ExactCheck
from rlr.toy.rewards.hpsv2 import TinyHPSv2 as TinyHPSv2
from rlr.toy.rewards.motion import MotionCheck as MotionCheck
from rlr.toy.rewards.pickscore import TinyPickScore as TinyPickScore
