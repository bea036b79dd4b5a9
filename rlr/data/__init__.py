"""Prompts, by data set."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.data.animals import SimpleAnimals as SimpleAnimals
    from rlr.data.cleaning import PromptFilter as PromptFilter
    from rlr.data.cleaning import WithoutWords as WithoutWords
    from rlr.data.hpdv2 import HPDv2 as HPDv2
    from rlr.data.listed import Prompts as Prompts
    from rlr.data.motion import MotionPrompts as MotionPrompts
    from rlr.data.pickapic import PickAPic as PickAPic
    from rlr.data.prompt_file import PromptFile as PromptFile
    from rlr.data.prompts import PromptData as PromptData
    from rlr.data.staged.dcot import DCoT as DCoT
    from rlr.data.staged.dcot import HandPrompts as HandPrompts
    from rlr.data.staged.endpoint import Endpoint as Endpoint
    from rlr.data.staged.stages import StageFile as StageFile
    from rlr.data.staged.stages import StageWriter as StageWriter
    from rlr.data.staged.stages import Templates as Templates
    from rlr.data.stream import PromptBatch as PromptBatch
    from rlr.data.stream import PromptPass as PromptPass
    from rlr.data.stream import PromptStream as PromptStream
    from rlr.data.vbench import VBenchPrompts as VBenchPrompts
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
