"""A VideoCrafter in its authors' layout."""

from pathlib import Path
from typing import Any

from rlr.io.atomic import write_whole
from rlr.models.export.base import Exporter
from rlr.models.latent import LatentDiffusion
from rlr.models.videocrafter.checkpoint import export_official, load_official
from rlr.models.videocrafter.model import CHECKPOINT, MERGES, VideoCrafter


class OfficialVideoCrafter(Exporter):
    """Writes ``model.ckpt`` as the authors' programs open it, and ``config.json``; a LoRA is added to the weights."""

    library = None

    def check(self, model: LatentDiffusion) -> None:
        if not isinstance(model, VideoCrafter):
            raise ValueError(
                f"OfficialVideoCrafter writes a VideoCrafter, and the model is a {type(model).__name__}; use DiffusersLoRA, "
                "PeftAdapter or Merged"
            )

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        assert isinstance(model, VideoCrafter)
        with model.text.opened() as tower:
            export_official(folder, model.unet, model.vae, tower, model.architecture, model.dtype, CHECKPOINT)
        if model.merges:
            write_whole(folder / MERGES, model.merges.read_bytes())

    def reload(self, model: LatentDiffusion, network: Any, folder: Path) -> Any:
        assert isinstance(model, VideoCrafter)
        return load_official(folder / CHECKPOINT, model.architecture, model.dtype).unet.to(model.device)
