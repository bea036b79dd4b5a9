"""The export formats by short names, for a command line."""

from collections.abc import Mapping
from types import MappingProxyType

from rlr.models.export.base import Exporter
from rlr.models.export.comfyui import ComfyUI
from rlr.models.export.diffusers_lora import DiffusersLoRA
from rlr.models.export.kohya import Kohya
from rlr.models.export.merged import Merged
from rlr.models.export.official_videocrafter import OfficialVideoCrafter
from rlr.models.export.peft_adapter import PeftAdapter
from rlr.models.export.single_file import SingleFile

FORMATS: Mapping[str, type[Exporter]] = MappingProxyType(
    {
        "diffusers": DiffusersLoRA,
        "peft": PeftAdapter,
        "kohya": Kohya,
        "comfyui": ComfyUI,
        "merged": Merged,
        "safetensors-single": SingleFile,
        "videocrafter": OfficialVideoCrafter,
    }
)
"""The exporters by the names that ``--to`` takes."""


def exporter_of(name: str) -> Exporter:
    """Returns the exporter of a short name.

    Raises:
        ValueError: If there is no format of this name.
    """
    if name not in FORMATS:
        raise ValueError(f"to: expected one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name]()
