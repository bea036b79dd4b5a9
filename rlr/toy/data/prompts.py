"""Prompts of the built-in world."""

from rlr.data.cleaning import PromptFilter
from rlr.data.prompts import PromptData
from rlr.toy.world.prompts import held_out_prompts, training_prompts


class WorldPrompts(PromptData):
    r"""Captions of the built-in world; those of evaluation are never drawn in training.

    Args:
        train: How many training captions.
        held_out: How many held-out captions, the same for validation, test and prediction; a third of them names a
            pair of colour and shape that training never shows.
        batch_size: The samples :math:`B` a process takes for a batch.
        samples_per_prompt: The samples :math:`k` of one prompt, side by side in a training batch.
        evaluation_samples: The samples of each prompt in validation, test and prediction.
        seed: Decides the captions and their order.
        shuffle: Whether to read training prompts in random order.
        keep: Says which captions are drawn; all by default.

    Raises:
        ValueError: If ``keep`` keeps fewer than one in a thousand.
    """

    def __init__(
        self,
        train: int = 1024,
        held_out: int = 64,
        batch_size: int = 8,
        samples_per_prompt: int = 1,
        evaluation_samples: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        keep: PromptFilter | None = None,
    ) -> None:
        super().__init__(batch_size, samples_per_prompt, evaluation_samples, seed, shuffle)
        self.training = training_prompts(train, seed, keep)
        self.evaluation = held_out_prompts(held_out, seed, keep)

    def prompts(self, split: str) -> list[str]:
        return self.training if split == "train" else self.evaluation
