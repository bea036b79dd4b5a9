"""Prompts of the built-in world, and the images and videos on which the built-in models were trained."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.toy.data.prompts import WorldPrompts as WorldPrompts
    from rlr.toy.data.prompts import WorldVideos as WorldVideos
    from rlr.toy.data.scenes import EncodedScenes as EncodedScenes
    from rlr.toy.data.scenes import Scenes as Scenes
    from rlr.toy.data.stages import Layered as Layered
    from rlr.toy.data.stages import WorldStages as WorldStages
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
