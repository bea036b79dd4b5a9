"""Animals, one a prompt, as in Black et al. (2023)."""

from rlr.data.cleaning import ASSETS, texts
from rlr.data.prompt_file import read
from rlr.data.prompts import PromptData


class SimpleAnimals(PromptData):
    """Trains on 45 common animals ("a cat"), and evaluates on 16 others.

    The list of the 45 follows that of Black et al. (2023). Validation, test and prediction are the same.
    """

    def prompts(self, split: str) -> list[str]:
        return texts(read(ASSETS / ("animals.txt" if split == "train" else "animals_held_out.txt")))
