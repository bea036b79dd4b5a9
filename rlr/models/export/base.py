"""What every exporter does."""

from abc import ABC, abstractmethod
from pathlib import Path

from rlr.models.base import DiffusionModel


class Exporter(ABC):
    """Writes the trained weights of a model in the format of another program."""

    @abstractmethod
    def write(self, model: DiffusionModel, folder: Path) -> list[Path]:
        """Writes a new folder whole or not at all, and returns the files in it."""
