"""RLR: align image and video diffusion models with rewards.

Every name below is imported on first use: ``import rlr`` itself imports neither torch nor any model library.
"""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rlr.api import Aligned as Aligned
    from rlr.api import align as align
    from rlr.api import load as load
    from rlr.callbacks import CMMD as CMMD
    from rlr.callbacks import EMA as EMA
    from rlr.callbacks import Checkpointing as Checkpointing
    from rlr.callbacks import CLIPFeatures as CLIPFeatures
    from rlr.callbacks import Colors as Colors
    from rlr.callbacks import Diversity as Diversity
    from rlr.callbacks import Evaluation as Evaluation
    from rlr.callbacks import HackingAlarm as HackingAlarm
    from rlr.callbacks import PrecisionRecall as PrecisionRecall
    from rlr.callbacks import PredictionWriter as PredictionWriter
    from rlr.callbacks import SafeCheckpointIO as SafeCheckpointIO
    from rlr.callbacks import SampleGrid as SampleGrid
    from rlr.callbacks import VBenchEvaluation as VBenchEvaluation
    from rlr.chain import Chain as Chain
    from rlr.chain import Trajectory as Trajectory
    from rlr.cli import main as main
    from rlr.data import DCoT as DCoT
    from rlr.data import Endpoint as Endpoint
    from rlr.data import HandPrompts as HandPrompts
    from rlr.data import HPDv2 as HPDv2
    from rlr.data import MotionPrompts as MotionPrompts
    from rlr.data import PickAPic as PickAPic
    from rlr.data import PromptBatch as PromptBatch
    from rlr.data import PromptData as PromptData
    from rlr.data import PromptFile as PromptFile
    from rlr.data import PromptFilter as PromptFilter
    from rlr.data import Prompts as Prompts
    from rlr.data import SimpleAnimals as SimpleAnimals
    from rlr.data import StageFile as StageFile
    from rlr.data import StageWriter as StageWriter
    from rlr.data import Templates as Templates
    from rlr.data import VBenchPrompts as VBenchPrompts
    from rlr.data import WithoutWords as WithoutWords
    from rlr.estimators import DDPO as DDPO
    from rlr.estimators import RLR as RLR
    from rlr.estimators import AlignProp as AlignProp
    from rlr.estimators import AllSteps as AllSteps
    from rlr.estimators import Baseline as Baseline
    from rlr.estimators import Depth as Depth
    from rlr.estimators import DirectionPerSample as DirectionPerSample
    from rlr.estimators import DRaFTLV as DRaFTLV
    from rlr.estimators import Estimator as Estimator
    from rlr.estimators import FirstOrder as FirstOrder
    from rlr.estimators import GaussianSteps as GaussianSteps
    from rlr.estimators import HalfOrder as HalfOrder
    from rlr.estimators import HalfOrderRLR as HalfOrderRLR
    from rlr.estimators import ImportanceRatio as ImportanceRatio
    from rlr.estimators import LeaveOneOut as LeaveOneOut
    from rlr.estimators import LookAhead as LookAhead
    from rlr.estimators import OfficialRLR as OfficialRLR
    from rlr.estimators import Perturbation as Perturbation
    from rlr.estimators import PromptStatistics as PromptStatistics
    from rlr.estimators import ReFL as ReFL
    from rlr.estimators import RoundStatistics as RoundStatistics
    from rlr.estimators import RunningMean as RunningMean
    from rlr.estimators import ScoreFunction as ScoreFunction
    from rlr.estimators import SharedDirection as SharedDirection
    from rlr.estimators import Statistics as Statistics
    from rlr.estimators import Surrogate as Surrogate
    from rlr.estimators import UniformSteps as UniformSteps
    from rlr.estimators import Unscaled as Unscaled
    from rlr.estimators import Zero as Zero
    from rlr.estimators import ZerothOrder as ZerothOrder
    from rlr.evaluation import Metric as Metric
    from rlr.evaluation import Results as Results
    from rlr.evaluation import compare as compare
    from rlr.evaluation import estimate as estimate
    from rlr.models import DiffusionModel as DiffusionModel
    from rlr.models import Frozen as Frozen
    from rlr.models import FullWeights as FullWeights
    from rlr.models import Guidance as Guidance
    from rlr.models import LoRA as LoRA
    from rlr.models import Size as Size
    from rlr.models import StableDiffusion as StableDiffusion
    from rlr.models import StableDiffusion3 as StableDiffusion3
    from rlr.models import Trainable as Trainable
    from rlr.models import VideoCrafter as VideoCrafter
    from rlr.modules import DOODL as DOODL
    from rlr.modules import Alignment as Alignment
    from rlr.modules import ImageAlignment as ImageAlignment
    from rlr.modules import Prediction as Prediction
    from rlr.modules import Sampling as Sampling
    from rlr.modules import VideoAlignment as VideoAlignment
    from rlr.rewards import Aesthetic as Aesthetic
    from rlr.rewards import AllFrames as AllFrames
    from rlr.rewards import AsIs as AsIs
    from rlr.rewards import Brightness as Brightness
    from rlr.rewards import CLIPScore as CLIPScore
    from rlr.rewards import Combine as Combine
    from rlr.rewards import CropShortest as CropShortest
    from rlr.rewards import DoubledRange as DoubledRange
    from rlr.rewards import EvenlySpaced as EvenlySpaced
    from rlr.rewards import FrameChoice as FrameChoice
    from rlr.rewards import FrameReward as FrameReward
    from rlr.rewards import FunctionReward as FunctionReward
    from rlr.rewards import HPSv2 as HPSv2
    from rlr.rewards import HPSVersion as HPSVersion
    from rlr.rewards import ImageReward as ImageReward
    from rlr.rewards import JPEGCompressibility as JPEGCompressibility
    from rlr.rewards import JPEGIncompressibility as JPEGIncompressibility
    from rlr.rewards import PadLongest as PadLongest
    from rlr.rewards import PickScore as PickScore
    from rlr.rewards import PillowCropShortest as PillowCropShortest
    from rlr.rewards import Preprocessing as Preprocessing
    from rlr.rewards import RandomFrame as RandomFrame
    from rlr.rewards import Remote as Remote
    from rlr.rewards import Reward as Reward
    from rlr.rewards import RunningZScore as RunningZScore
    from rlr.rewards import Scaling as Scaling
    from rlr.rewards import Squash as Squash
    from rlr.samplers import DDIM as DDIM
    from rlr.samplers import Ancestral as Ancestral
    from rlr.samplers import FlowSDE as FlowSDE
    from rlr.samplers import Sampler as Sampler
    from rlr.schedules import DiscreteSchedule as DiscreteSchedule
    from rlr.schedules import RectifiedFlow as RectifiedFlow
    from rlr.schedules import RescaledSchedule as RescaledSchedule
    from rlr.schedules import Schedule as Schedule
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
