"""Prompts, by data set."""

from rlr.data.animals import SimpleAnimals
from rlr.data.cleaning import PromptFilter, WithoutWords
from rlr.data.hpdv2 import HPDv2
from rlr.data.listed import Prompts
from rlr.data.motion import MotionPrompts
from rlr.data.pickapic import PickAPic
from rlr.data.prompt_file import PromptFile
from rlr.data.prompts import PromptData
from rlr.data.staged.dcot import DCoT, HandPrompts
from rlr.data.staged.endpoint import Endpoint
from rlr.data.staged.stages import StageFile, StageWriter, Templates
from rlr.data.stream import PromptBatch, PromptPass, PromptStream
from rlr.data.vbench import VBenchPrompts
