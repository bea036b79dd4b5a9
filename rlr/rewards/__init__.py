"""Rewards: a score of samples given their prompts, one file a reward."""

from rlr.rewards.base import Reward
from rlr.rewards.brightness import Brightness
from rlr.rewards.exact import ExactCheck
from rlr.rewards.jpeg import JPEGCompressibility, JPEGIncompressibility
from rlr.rewards.pickscore import PickScore, TinyPickScore
