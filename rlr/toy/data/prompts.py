"""Prompts of the built-in world."""

from typing import Any

from rlr.data.prompts import PromptData
from rlr.toy.world.prompts import held_out_prompts, held_out_video_prompts, training_prompts, training_video_prompts


class WorldPrompts(PromptData):
    r"""Captions of images of the built-in world; those of evaluation are never drawn in training.

    Captions that ``keep`` drops are replaced by further ones.

    Args:
        train: The number of training captions.
        held_out: The number of held-out captions, the same for validation, test and prediction; a third of them names a
            pair of color and shape that training never shows.
        **loader: The arguments of :class:`~rlr.data.prompts.PromptData`; ``seed`` decides the captions, too.

    Raises:
        ValueError: If ``keep`` keeps fewer than one in a thousand.
    """

    def __init__(self, train: int = 1024, held_out: int = 64, **loader: Any) -> None:
        super().__init__(**loader)
        self.training = training_prompts(train, self.seed, self.keep)
        self.evaluation = held_out_prompts(held_out, self.seed, self.keep)

    def prompts(self, split: str) -> list[str]:
        return self.training if split == "train" else self.evaluation


class WorldVideos(PromptData):
    r"""Captions of videos of the built-in world; training never draws the images that those of evaluation name.

    Captions that ``keep`` drops are replaced by further ones.

    Args:
        train: The number of training captions.
        held_out: The number of held-out captions, the same for validation, test and prediction.
        **loader: The arguments of :class:`~rlr.data.prompts.PromptData`; ``seed`` decides the captions, too.

    Raises:
        ValueError: If ``keep`` keeps fewer than one in a thousand.
    """

    def __init__(self, train: int = 1024, held_out: int = 64, **loader: Any) -> None:
        super().__init__(**loader)
        self.training = training_video_prompts(train, self.seed, self.keep)
        self.evaluation = held_out_video_prompts(held_out, self.seed, self.keep)

    def prompts(self, split: str) -> list[str]:
        return self.training if split == "train" else self.evaluation
