"""Rewards: a score of samples given their prompts, one file a reward."""

from rlr.rewards.base import FrameSelection, Reward
from rlr.rewards.brightness import Brightness
from rlr.rewards.combine import AsIs, Combine, RunningZScore, Scaling
from rlr.rewards.doubled import DoubledRange
from rlr.rewards.frames import AllFrames, EvenlySpaced, FrameChoice, FrameReward, RandomFrame
from rlr.rewards.jpeg import JPEGCompressibility, JPEGIncompressibility
from rlr.rewards.networks.aesthetic import Aesthetic
from rlr.rewards.networks.clipscore import CLIPScore
from rlr.rewards.networks.hpsv2 import HPSv2, HPSVersion
from rlr.rewards.networks.imagereward import ImageReward
from rlr.rewards.networks.pickscore import PickScore
from rlr.rewards.networks.preprocessing import CropShortest, Fit, PadLongest, PillowCropShortest, Preprocessing, Squash
from rlr.rewards.remote.client import Remote
