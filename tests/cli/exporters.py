"""A format for tests: one text file with the sum of each trained weight."""

from pathlib import Path

from rlr.models import DiffusionModel
from rlr.models.export import Exporter


class Sums(Exporter):
    """Writes ``NAME VALUE`` a line.

    Args:
        digits: The digits of a value.
    """

    def __init__(self, digits: int = 6) -> None:
        self.digits = digits

    def write(self, model: DiffusionModel, folder: Path, card: object = None) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "sums.txt"
        sums = {name: weight.detach().double().sum().item() for name, weight in model.trainable.items()}
        path.write_text("".join(f"{name} {value:.{self.digits}f}\n" for name, value in sums.items()))
        return [path]

    def save(self, *args: object) -> None:
        raise NotImplementedError

    def reload(self, *args: object) -> None:
        raise NotImplementedError
