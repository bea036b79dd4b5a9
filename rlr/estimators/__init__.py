"""Gradient estimators of a diffusion chain: one file a method."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.estimators.advantages import Baseline as Baseline
    from rlr.estimators.advantages import GroupLeaveOneOut as GroupLeaveOneOut
    from rlr.estimators.advantages import LeaveOneOut as LeaveOneOut
    from rlr.estimators.advantages import RunningMean as RunningMean
    from rlr.estimators.advantages import Zero as Zero
    from rlr.estimators.antithetic import Antithetic as Antithetic
    from rlr.estimators.base import Estimator as Estimator
    from rlr.estimators.base import Term as Term
    from rlr.estimators.coefficients import Coefficients as Coefficients
    from rlr.estimators.coefficients import ConstantCoefficients as ConstantCoefficients
    from rlr.estimators.coefficients import LeaveOneOutRegression as LeaveOneOutRegression
    from rlr.estimators.coefficients import RunningRegression as RunningRegression
    from rlr.estimators.control_variate import LookAhead as LookAhead
    from rlr.estimators.critic import Critic as Critic
    from rlr.estimators.critic_features import ClipFeatures as ClipFeatures
    from rlr.estimators.critic_features import CriticFeatures as CriticFeatures
    from rlr.estimators.critic_features import LatentFeatures as LatentFeatures
    from rlr.estimators.decoupled import DecoupledGroups as DecoupledGroups
    from rlr.estimators.divergence import Penalty as Penalty
    from rlr.estimators.drawing import Drawing as Drawing
    from rlr.estimators.drawing import SegmentsByNorm as SegmentsByNorm
    from rlr.estimators.drawing import UniformSegments as UniformSegments
    from rlr.estimators.first_order import AllSteps as AllSteps
    from rlr.estimators.first_order import Depth as Depth
    from rlr.estimators.first_order import FirstOrder as FirstOrder
    from rlr.estimators.first_order import GaussianSteps as GaussianSteps
    from rlr.estimators.first_order import UniformSteps as UniformSteps
    from rlr.estimators.forward_process import ForwardProcess as ForwardProcess
    from rlr.estimators.gated_penalty import GatedPenalty as GatedPenalty
    from rlr.estimators.half_order import HalfOrder as HalfOrder
    from rlr.estimators.half_order_rlr import HalfOrderRLR as HalfOrderRLR
    from rlr.estimators.matching_errors import CleanError as CleanError
    from rlr.estimators.matching_errors import MatchingError as MatchingError
    from rlr.estimators.matching_errors import NoiseError as NoiseError
    from rlr.estimators.matching_errors import NormalizedError as NormalizedError
    from rlr.estimators.matching_errors import PowerVelocityError as PowerVelocityError
    from rlr.estimators.matching_errors import VelocityError as VelocityError
    from rlr.estimators.old_policy import DecayRamp as DecayRamp
    from rlr.estimators.perturbation import DirectionPerSample as DirectionPerSample
    from rlr.estimators.perturbation import Perturbation as Perturbation
    from rlr.estimators.perturbation import SharedDirection as SharedDirection
    from rlr.estimators.published.alignprop import AlignProp as AlignProp
    from rlr.estimators.published.awm import AWM as AWM
    from rlr.estimators.published.ddpo import DDPO as DDPO
    from rlr.estimators.published.direct_align import DirectAlign as DirectAlign
    from rlr.estimators.published.draft_lv import DRaFTLV as DRaFTLV
    from rlr.estimators.published.drtune import DRTune as DRTune
    from rlr.estimators.published.grpo import GRPO as GRPO
    from rlr.estimators.published.hybrid import HybridPolicyGradient as HybridPolicyGradient
    from rlr.estimators.published.leapalign import LeapAlign as LeapAlign
    from rlr.estimators.published.nft import DiffusionNFT as DiffusionNFT
    from rlr.estimators.published.official_rlr import OfficialRLR as OfficialRLR
    from rlr.estimators.published.ram import RAM as RAM
    from rlr.estimators.published.refl import ReFL as ReFL
    from rlr.estimators.ranks import GroupRanks as GroupRanks
    from rlr.estimators.ratios import LikelihoodRatio as LikelihoodRatio
    from rlr.estimators.ratios import NormalizedRatio as NormalizedRatio
    from rlr.estimators.rlr import RLR as RLR
    from rlr.estimators.sample_clip import SampleClip as SampleClip
    from rlr.estimators.statistics import Divisor as Divisor
    from rlr.estimators.statistics import GroupStatistics as GroupStatistics
    from rlr.estimators.statistics import GroupStd as GroupStd
    from rlr.estimators.statistics import PromptStatistics as PromptStatistics
    from rlr.estimators.statistics import RoundStatistics as RoundStatistics
    from rlr.estimators.statistics import RoundStd as RoundStd
    from rlr.estimators.statistics import Statistics as Statistics
    from rlr.estimators.statistics import Unscaled as Unscaled
    from rlr.estimators.surrogates import ImportanceRatio as ImportanceRatio
    from rlr.estimators.surrogates import ScoreFunction as ScoreFunction
    from rlr.estimators.surrogates import Surrogate as Surrogate
    from rlr.estimators.values import OwnReward as OwnReward
    from rlr.estimators.values import StandIn as StandIn
    from rlr.estimators.values import Value as Value
    from rlr.estimators.weighted_sum import Sum as Sum
    from rlr.estimators.zeroth_order import ZerothOrder as ZerothOrder
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
