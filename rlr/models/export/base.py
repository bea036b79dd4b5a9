"""What every exporter does: write a new folder, read it with the other program, compare, and only then keep it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from rlr.io.atomic import new_folder, write_whole
from rlr.models.adapters import LoRA
from rlr.models.base import DiffusionModel
from rlr.models.export.card import CARD, Card
from rlr.models.latent import LatentDiffusion
from rlr.models.wrapper import unwrap

TOLERANCES = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""The mean absolute difference of pixels that rounding explains, by the type of the frozen weights."""


class Exporter(ABC):
    """Writes the trained weights of a model in one format, and checks what was written.

    The folder is written under another name, read again by the program that the format is for, and renamed when the
    images of the reloaded model are those of the model in memory and not those of the base model.

    Attributes:
        library: The library on the hub that reads the format; None if it has no library.
        tags: The tags of the format on the hub.
    """

    library: str | None = "diffusers"
    tags: Sequence[str] = ()

    def write(self, model: DiffusionModel, folder: str | Path, card: Card | None = None) -> list[Path]:
        """Writes a new folder.

        Args:
            model: The trained model; guidance and other wrappers are taken off.
            folder: The folder, which must not exist or be empty.
            card: The facts of the training for a model card, ``README.md``; by default none is written.

        Returns:
            The files that were written.

        Raises:
            ValueError: If the model does not fit the format, or the reloaded model differs.
            FileExistsError: If the folder holds files.
        """
        base, target = _latent(model, self), Path(folder).expanduser()
        self.check(base)
        with new_folder(target) as part:
            self.save(base, part)
            self._verify(base, part)
            if card:
                write_whole(part / CARD, self._card(base, card, target.name).encode())
        return sorted(file for file in target.rglob("*") if file.is_file())

    def check(self, model: LatentDiffusion) -> None:  # noqa: B027 - a hook
        """Raises ValueError if a model does not fit the format; by default all do."""

    @abstractmethod
    def save(self, model: LatentDiffusion, folder: Path) -> None:
        """Writes the files into an empty folder."""

    @abstractmethod
    def reload(self, model: LatentDiffusion, network: Any, folder: Path) -> Any:
        """Returns the denoiser that the other program reads from the folder; ``network`` is a fresh one of the base model."""

    def usage(self, model: LatentDiffusion, base: str, folder: str) -> str:
        """Returns Python code that loads a folder, for the model card; by default none.

        Args:
            model: The model.
            base: The base model: a name on the hub, or a path.
            folder: The folder.
        """
        return ""

    def _card(self, model: LatentDiffusion, card: Card, folder: str) -> str:
        # a card may be published, and the path of a folder on this machine is private
        base = Path(model.source).name if Path(model.source).exists() else model.source
        kind = (type(self).__doc__ or "").partition("\n")[0].replace("``", "`")
        task = "text-to-image" if model.size.frames is None else "text-to-video"
        return card.text(
            base,
            f"Format `{type(self).__name__}`: {kind}",
            self.usage(model, base, folder),
            {"library_name": self.library, "pipeline_tag": task, "tags": f"[{', '.join([*self.tags, 'rlr'])}]"},
        )

    @torch.no_grad()
    def _verify(self, model: LatentDiffusion, folder: Path) -> None:
        memory = model.preview(model.network)
        network = model.fresh_network()
        base = model.preview(network)
        again = model.preview(self.reload(model, network, folder))
        error, change = _distance(again, memory), _distance(memory, base)
        if not change > 0:
            raise ValueError(
                f"{type(self).__name__}: the trained weights make the images of the base model; load a checkpoint of the "
                "training before exporting"
            )
        if not error < min(change, TOLERANCES[model.dtype]):
            raise ValueError(
                f"{type(self).__name__}: the reloaded model makes other images than the model in memory (mean difference "
                f"{error:.2g}, and {change:.2g} between trained and base model); nothing was written"
            )


def check_lora(model: LatentDiffusion, exporter: Exporter) -> None:
    """Raises ValueError if the trained weights of a model are not a LoRA."""
    if not isinstance(model.adapter, LoRA):
        raise ValueError(
            f"{type(exporter).__name__} writes a LoRA, and the trained weights of this {type(model).__name__} are "
            f"{type(model.adapter).__name__}; use Merged for a diffusers model, OfficialVideoCrafter for a VideoCrafter"
        )


def check_unet(model: LatentDiffusion, exporter: Exporter) -> None:
    """Raises ValueError if a model is not a Stable Diffusion 1.x or 2.x."""
    if model.pipeline_class() is not StableDiffusionPipeline:
        raise ValueError(
            f"{type(exporter).__name__} writes a Stable Diffusion 1.x or 2.x, and the model is a {type(model).__name__}; use "
            "DiffusersLoRA, ComfyUI or Merged"
        )


def _latent(model: DiffusionModel, exporter: Exporter) -> LatentDiffusion:
    base = unwrap(model)
    if not isinstance(base, LatentDiffusion):
        raise ValueError(
            f"{type(exporter).__name__} exports a LatentDiffusion, and the model is a {type(base).__name__}; use a checkpoint "
            "of the trainer"
        )
    return base


def _distance(one: Tensor, other: Tensor) -> float:
    return (one.double() - other.double()).abs().mean().item()
