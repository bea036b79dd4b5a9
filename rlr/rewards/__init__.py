"""Rewards: a score of samples given their prompts, one file a reward."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.rewards.base import FrameSelection as FrameSelection
    from rlr.rewards.base import Reward as Reward
    from rlr.rewards.base import Scores as Scores
    from rlr.rewards.brightness import Brightness as Brightness
    from rlr.rewards.combine import AsIs as AsIs
    from rlr.rewards.combine import Combine as Combine
    from rlr.rewards.combine import RunningZScore as RunningZScore
    from rlr.rewards.combine import Scaling as Scaling
    from rlr.rewards.doubled import DoubledRange as DoubledRange
    from rlr.rewards.frames import AllFrames as AllFrames
    from rlr.rewards.frames import EvenlySpaced as EvenlySpaced
    from rlr.rewards.frames import FrameChoice as FrameChoice
    from rlr.rewards.frames import FrameReward as FrameReward
    from rlr.rewards.frames import RandomFrame as RandomFrame
    from rlr.rewards.function import FunctionReward as FunctionReward
    from rlr.rewards.geneval.colors import CLIPColors as CLIPColors
    from rlr.rewards.geneval.mask2former import Mask2Former as Mask2Former
    from rlr.rewards.geneval.objects import Detection as Detection
    from rlr.rewards.geneval.reward import GenEval as GenEval
    from rlr.rewards.geneval.rules import Correct as Correct
    from rlr.rewards.geneval.rules import Exact as Exact
    from rlr.rewards.geneval.rules import PartialCredit as PartialCredit
    from rlr.rewards.geneval.rules import Rule as Rule
    from rlr.rewards.jpeg import JPEGCompressibility as JPEGCompressibility
    from rlr.rewards.jpeg import JPEGIncompressibility as JPEGIncompressibility
    from rlr.rewards.judge.questions import AxisScores as AxisScores
    from rlr.rewards.judge.questions import FinalScore as FinalScore
    from rlr.rewards.judge.questions import Question as Question
    from rlr.rewards.judge.questions import Scored as Scored
    from rlr.rewards.judge.questions import VideoAxisScores as VideoAxisScores
    from rlr.rewards.judge.questions import YesNo as YesNo
    from rlr.rewards.judge.reward import VLMJudge as VLMJudge
    from rlr.rewards.networks.aesthetic import Aesthetic as Aesthetic
    from rlr.rewards.networks.clipscore import CLIPScore as CLIPScore
    from rlr.rewards.networks.hpsv2 import HPSv2 as HPSv2
    from rlr.rewards.networks.hpsv2 import HPSVersion as HPSVersion
    from rlr.rewards.networks.hpsv3 import HPSv3 as HPSv3
    from rlr.rewards.networks.imagereward import ImageReward as ImageReward
    from rlr.rewards.networks.pickscore import PickScore as PickScore
    from rlr.rewards.networks.preprocessing import CropShortest as CropShortest
    from rlr.rewards.networks.preprocessing import Fit as Fit
    from rlr.rewards.networks.preprocessing import PadLongest as PadLongest
    from rlr.rewards.networks.preprocessing import PillowCropShortest as PillowCropShortest
    from rlr.rewards.networks.preprocessing import Preprocessing as Preprocessing
    from rlr.rewards.networks.preprocessing import Squash as Squash
    from rlr.rewards.networks.viclip import ViCLIP as ViCLIP
    from rlr.rewards.networks.viclip_network import ViCLIPSizes as ViCLIPSizes
    from rlr.rewards.networks.videoalign import VideoAlign as VideoAlign
    from rlr.rewards.ocr import OCR as OCR
    from rlr.rewards.rapid_text import RapidText as RapidText
    from rlr.rewards.relative import Relative as Relative
    from rlr.rewards.remote.client import Remote as Remote
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
