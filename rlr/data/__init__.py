"""Prompts, and the pictures on which the built-in models were trained."""

from rlr.data.prompts import PromptData, PromptFile, Prompts
from rlr.data.scenes import EncodedScenes, Scenes
from rlr.data.stream import PromptBatch, PromptPass, PromptStream
from rlr.data.world import WorldPrompts
