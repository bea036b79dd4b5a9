"""Prompts, and the pictures on which the built-in models were trained."""

from rlr.data.animals import SimpleAnimals
from rlr.data.cleaning import PromptFilter, WithoutWords
from rlr.data.dcot import DCoT, HandPrompts
from rlr.data.endpoint import Endpoint
from rlr.data.hpdv2 import HPDv2
from rlr.data.motion import MotionPrompts
from rlr.data.pickapic import PickAPic
from rlr.data.prompts import PromptData, PromptFile, Prompts
from rlr.data.scenes import EncodedScenes, Scenes
from rlr.data.stages import Layered, StageFile, StageWriter, Templates, WorldStages
from rlr.data.stream import PromptBatch, PromptPass, PromptStream
from rlr.data.vbench import VBenchPrompts
from rlr.data.world import WorldPrompts
from rlr.data.world_clips import WorldClips
