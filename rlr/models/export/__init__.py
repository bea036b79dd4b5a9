"""Writing trained weights for other programs."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.models.export.base import Exporter as Exporter
    from rlr.models.export.card import Card as Card
    from rlr.models.export.comfyui import ComfyUI as ComfyUI
    from rlr.models.export.diffusers_lora import DiffusersLoRA as DiffusersLoRA
    from rlr.models.export.formats import FORMATS as FORMATS
    from rlr.models.export.formats import exporter_of as exporter_of
    from rlr.models.export.hub import push as push
    from rlr.models.export.kohya import Kohya as Kohya
    from rlr.models.export.merged import Merged as Merged
    from rlr.models.export.official_videocrafter import OfficialVideoCrafter as OfficialVideoCrafter
    from rlr.models.export.peft_adapter import PeftAdapter as PeftAdapter
    from rlr.models.export.single_file import SingleFile as SingleFile
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
