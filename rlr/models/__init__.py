"""Base models."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.models.base import Condition as Condition
    from rlr.models.base import DiffusionModel as DiffusionModel
    from rlr.models.guidance import Guidance as Guidance
    from rlr.models.lora import Frozen as Frozen
    from rlr.models.lora import FullWeights as FullWeights
    from rlr.models.lora import LoRA as LoRA
    from rlr.models.lora import Trainable as Trainable
    from rlr.models.stable_diffusion import StableDiffusion as StableDiffusion
    from rlr.models.staged import StagedCondition as StagedCondition
    from rlr.models.staged import StagedPrompt as StagedPrompt
    from rlr.models.videocrafter.architecture import Architecture as Architecture
    from rlr.models.videocrafter.architecture import Variant as Variant
    from rlr.models.videocrafter.model import VideoCrafter as VideoCrafter
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
