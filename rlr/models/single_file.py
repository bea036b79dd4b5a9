"""Parts of a Stable Diffusion in one file of its authors' layout, as diffusers reads it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from rlr.io.hub_connection import cache_if_offline
from rlr.io.weights import UNREADABLE
from rlr.models.folder import LOGGERS, ModelFolder, silenced
from rlr.models.integrity import check_file
from rlr.models.loaded import PartsInMemory

ENDINGS = (".safetensors", ".ckpt")
"""The endings of single files."""
NETWORKS = ("unet", "vae", "text_encoder")
"""The parts whose weights are in the file."""
CONFIG = "config"
"""The folder beside a file that :class:`~rlr.models.export.SingleFile` writes."""


@dataclass(frozen=True)
class ModelFile(PartsInMemory):
    """One file with the weights of U-Net, autoencoder and text encoder.

    Diffusers reads the whole file for each of these networks; what else it makes on the way is kept.

    Args:
        configuration: A folder in diffusers' layout, or its name on the hub, whose configurations and tokenizer belong to the
            file. By default the folder ``config`` beside the file, or else what diffusers recognizes the weights as.
    """

    configuration: str | None = None
    known: dict[str, Any] = field(default_factory=dict)

    def network(self, kind: Any, part: str, **dtype: torch.dtype) -> Any:
        network: nn.Module = self.part(part)
        # asked for again, a network has the weights of the file again
        del self.known[part]
        if not isinstance(network, kind):
            raise ValueError(f"{self.path}: expected {self.kind}, found a {type(network).__name__} as its {part}")
        missing = [name for name, weight in network.state_dict(keep_vars=True).items() if weight.is_meta]
        if missing:
            raise ValueError(
                f"{self.path} lacks weights of the {type(network).__name__}: {missing[0]!r} ({len(missing)} in all); download "
                "the file again, or set config to the folder of its configurations"
            )
        (number,) = dtype.values()
        return nn.Module.to(network, number)

    def index(self) -> dict[str, Any]:
        return {}

    def fingerprint(self, part: str) -> str:
        facts = Path(self.path).stat()
        return f"{Path(self.path).resolve()} {part} {facts.st_size} {facts.st_mtime_ns}"

    def files(self, part: str) -> str:
        return self.path

    def part(self, part: str) -> Any:
        if part not in self.known:
            found = self._read(part)
            self.known.update({name: getattr(found, name) for name in (part, "tokenizer", "scheduler")})
        return self.known[part]

    def _read(self, part: str) -> Any:
        """Returns the pipeline that diffusers reads from the file, of its networks this part alone."""
        check_file(Path(self.path))
        configuration = self._configuration()
        others = {name: None for name in (*NETWORKS, "safety_checker", "feature_extractor") if name != part}
        try:
            with silenced(LOGGERS), cache_if_offline(configuration or ""):
                return StableDiffusionPipeline.from_single_file(self.path, config=configuration, **others)
        except UNREADABLE as error:
            # a weight that the file lacks stays without content
            cause = "it lacks weights" if "meta tensor" in str(error) else str(error).strip().split("\n")[0].rstrip(".")
            raise ValueError(
                f"{self.path}: expected {self.kind} in its authors' layout, and diffusers cannot read its {part} ({cause}); set "
                "config to a folder of its configurations and its tokenizer in diffusers' layout"
            ) from error

    def _configuration(self) -> str | None:
        beside = Path(self.path).parent / CONFIG
        return self.configuration or (str(beside) if (beside / "model_index.json").is_file() else None)


def open_model(
    path: str, kind: str, parts: tuple[str, ...], revision: str | None, variant: str | None, config: str | None
) -> ModelFolder:
    """Returns the source of a Stable Diffusion: one file, or a folder, local or on the hub."""
    if Path(path).suffix in ENDINGS:
        return ModelFile(path, kind, parts, configuration=config)
    return ModelFolder(path, kind, parts, revision, variant)
