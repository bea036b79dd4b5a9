"""Rewards: a score of samples given their prompts, one file a reward."""

from rlr.rewards.aesthetic import Aesthetic
from rlr.rewards.base import Excerpt, Reward
from rlr.rewards.brightness import Brightness
from rlr.rewards.clipscore import CLIPScore
from rlr.rewards.combine import AsIs, Combine, RunningZScore, Scaling
from rlr.rewards.doubled import DoubledRange
from rlr.rewards.dynamic import DynamicCheck
from rlr.rewards.exact import ExactCheck
from rlr.rewards.frames import AllFrames, EvenlySpaced, FrameChoice, FrameReward, RandomFrame
from rlr.rewards.hpsv2 import HPSv2, HPSVersion, TinyHPSv2
from rlr.rewards.imagereward import ImageReward
from rlr.rewards.jpeg import JPEGCompressibility, JPEGIncompressibility
from rlr.rewards.motion import MotionCheck
from rlr.rewards.pickscore import PickScore, TinyPickScore
from rlr.rewards.preprocessing import CropShortest, Fit, PadLongest, PillowCropShortest, Preprocessing, Squash
from rlr.rewards.remote import Remote
