"""Base models."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.models.adapters import Frozen as Frozen
    from rlr.models.adapters import FullWeights as FullWeights
    from rlr.models.adapters import LoRA as LoRA
    from rlr.models.adapters import Trainable as Trainable
    from rlr.models.base import Condition as Condition
    from rlr.models.base import DiffusionModel as DiffusionModel
    from rlr.models.base import Size as Size
    from rlr.models.cogvideox import CogVideoX as CogVideoX
    from rlr.models.flux import Flux as Flux
    from rlr.models.flux2 import Flux2 as Flux2
    from rlr.models.guidance import Guidance as Guidance
    from rlr.models.guidance import Interval as Interval
    from rlr.models.guidance import Scale as Scale
    from rlr.models.guidance import Switched as Switched
    from rlr.models.hunyuan_video15 import HunyuanVideo15 as HunyuanVideo15
    from rlr.models.latent import LatentDiffusion as LatentDiffusion
    from rlr.models.ltx_video import LTXVideo as LTXVideo
    from rlr.models.placement import OnCPU as OnCPU
    from rlr.models.placement import OnDemand as OnDemand
    from rlr.models.placement import TextPlacement as TextPlacement
    from rlr.models.placement import WithModel as WithModel
    from rlr.models.qwen_image import QwenImage as QwenImage
    from rlr.models.rescaled_guidance import RescaledGuidance as RescaledGuidance
    from rlr.models.stable_diffusion import StableDiffusion as StableDiffusion
    from rlr.models.stable_diffusion3 import StableDiffusion3 as StableDiffusion3
    from rlr.models.stable_diffusion_xl import StableDiffusionXL as StableDiffusionXL
    from rlr.models.staged import StagedCondition as StagedCondition
    from rlr.models.staged import StagedPrompt as StagedPrompt
    from rlr.models.videocrafter.architecture import Architecture as Architecture
    from rlr.models.videocrafter.architecture import Variant as Variant
    from rlr.models.videocrafter.model import VideoCrafter as VideoCrafter
    from rlr.models.videocrafter.turbo import T2VTurbo as T2VTurbo
    from rlr.models.wan import Wan as Wan
    from rlr.models.wrapper import ModelWrapper as ModelWrapper
    from rlr.models.z_image import ZImage as ZImage
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
