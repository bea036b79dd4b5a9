"""Animals, one a prompt, as in Black et al. (2023)."""

from rlr.data.cleaning import ASSETS, texts
from rlr.data.prompts import PromptData, read


class SimpleAnimals(PromptData):
    r"""Trains on 45 common animals ("a cat"), and evaluates on 16 others.

    The list of the 45 follows that of Black et al. (2023). Validation, test and prediction are the same.

    Args:
        batch_size: The samples :math:`B` a process takes for a batch.
        samples_per_prompt: The samples :math:`k` of one prompt, side by side in a training batch.
        evaluation_samples: The samples of each prompt in validation, test and prediction.
        seed: Decides the order of each training pass.
        shuffle: Whether to read training prompts in random order.
    """

    def prompts(self, split: str) -> list[str]:
        return texts(read(ASSETS / ("animals.txt" if split == "train" else "animals_held_out.txt")))
