"""The small files in published layouts, and the data modules over them and over what is shipped."""

from collections.abc import Callable
from pathlib import Path

from rlr.data import (
    DCoT,
    HPDv2,
    MotionPrompts,
    PickAPic,
    PromptData,
    PromptFile,
    Prompts,
    SimpleAnimals,
    Templates,
    VBenchPrompts,
)
from rlr.data.cleaning import ASSETS
from rlr.toy.data import WorldPrompts, WorldVideos

FOLDER = Path(__file__).parents[1] / "fixtures" / "data"
PICTURES = FOLDER / "pickapic_v1"
NO_PICTURES = FOLDER / "pickapic_v2_no_images"
HPD = FOLDER / "hpdv2"
VBENCH = FOLDER / "vbench" / "VBench_full_info.json"

MAKERS: dict[str, Callable[..., PromptData]] = {
    "PickAPic": lambda **settings: PickAPic(str(PICTURES), **settings),
    "PickAPic without pictures": lambda **settings: PickAPic(str(NO_PICTURES), **settings),
    "HPDv2": lambda **settings: HPDv2(str(HPD), str(HPD), **settings),
    "MotionPrompts": MotionPrompts,
    "SimpleAnimals": SimpleAnimals,
    "PromptFile": lambda **settings: PromptFile(
        str(ASSETS / "animals.txt"), str(ASSETS / "animals_held_out.txt"), **settings
    ),
    "Prompts": lambda **settings: Prompts([f"a number, {k}" for k in range(20)], ["a zero", "an infinity"], **settings),
    "DCoT": lambda **settings: DCoT(SimpleAnimals(**settings), Templates()),
    "WorldPrompts": lambda **settings: WorldPrompts(train=20, held_out=9, **settings),
    "WorldVideos": lambda **settings: WorldVideos(train=20, held_out=9, **settings),
}
"""Everything that has prompts to train on."""

EVALUATIONS: dict[str, Callable[..., PromptData]] = MAKERS | {"VBenchPrompts": VBenchPrompts}
