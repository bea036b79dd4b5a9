"""Writing trained weights for other programs."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.models.export.base import Exporter as Exporter
    from rlr.models.export.diffusers_lora import DiffusersLoRA as DiffusersLoRA
    from rlr.models.export.merged import Merged as Merged
    from rlr.models.export.official_videocrafter import OfficialVideoCrafter as OfficialVideoCrafter
    from rlr.models.export.peft_adapter import PeftAdapter as PeftAdapter
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
