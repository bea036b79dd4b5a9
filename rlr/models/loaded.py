"""Parts of a model that a pipeline of diffusers holds in memory."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from rlr.models.adapters import FullWeights, Trainable, frozen_state
from rlr.models.folder import ModelFolder

DENOISERS = ("unet", "transformer", "transformer_2")
"""The parts that are trained."""


class PartsInMemory(ModelFolder, ABC):
    """A source whose parts are objects of diffusers and transformers."""

    @abstractmethod
    def part(self, part: str) -> Any:
        """Returns a part.

        Raises:
            ValueError: If there is no such part.
        """

    def config(self, kind: Any, part: str) -> dict[str, Any]:
        found = self.part(part).config
        # diffusers states the class in files only
        named = {"_class_name": type(self.part(part)).__name__}
        return found.to_dict() if hasattr(found, "to_dict") else {**dict(found), **named}

    def model_type(self, part: str) -> str:
        return str(self.part(part).config.model_type)

    def tokenizer(self, kind: Any, part: str = "tokenizer", **options: Any) -> Any:
        return self.part(part)


@dataclass(frozen=True)
class LoadedPipeline(PartsInMemory):
    """A pipeline of diffusers in the place of a folder. Its networks are used as they are and not copied.

    Args:
        held: The pipeline.
        keep: Whether to keep a copy of the denoiser's weights; needed where the network's own weights are trained.
    """

    held: Any = None
    keep: bool = False
    copies: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def network(self, kind: Any, part: str, **dtype: torch.dtype) -> Any:
        """Returns the pipeline's own network; asked for the denoiser again, one with the weights before training."""
        network: nn.Module = self.part(part)
        if not isinstance(network, kind):
            raise ValueError(
                f"{type(self.held).__name__}: expected {self.kind}, whose {part} is a {kind.__name__}, found a "
                f"{type(network).__name__}"
            )
        if part in self.copies:
            return self._again(kind, part, network)
        if part in DENOISERS:
            self._check_bare(network, part)
            self.copies[part] = (
                {n: w.detach().cpu().clone() for n, w in network.state_dict().items()} if self.keep else {}
            )
        return network

    def pipeline(self) -> str | None:
        return type(self.held).__name__

    def index(self) -> dict[str, Any]:
        return dict(getattr(self.held, "config", None) or {})

    def fingerprint(self, part: str) -> str:
        """Returns a digest of the sums of all weights."""
        sums = [weight.detach().double().sum() for weight in self.part(part).parameters()]
        return f"{part} {hashlib.sha256(torch.stack(sums).cpu().numpy().tobytes()).hexdigest()}"

    def files(self, part: str) -> str:
        return f"{part} of the {type(self.held).__name__}"

    def part(self, part: str) -> Any:
        found = getattr(self.held, part, None)
        if found is None:
            raise ValueError(
                f"{type(self.held).__name__}: expected {self.kind}, found no {part}; load the pipeline with all of its parts"
            )
        return found

    def _again(self, kind: Any, part: str, network: Any) -> Any:
        state: Mapping[str, Tensor] = self.copies[part] or frozen_state(network)
        again = kind.from_config(network.config)
        # diffusers' own method warns about an empty list of layers
        nn.Module.to(again, next(iter(state.values())).dtype)
        again.load_state_dict(state)
        return again

    def _check_bare(self, network: nn.Module, part: str) -> None:
        if any(isinstance(module, BaseTunerLayer) for module in network.modules()):
            raise ValueError(
                f"the {part} of the {type(self.held).__name__} has a LoRA, and a new one is to be trained; call "
                "pipe.fuse_lora() and pipe.unload_lora_weights() to train on top of it, or load the pipeline again"
            )


def loaded_pipeline(pipe: Any, kind: str, parts: tuple[str, ...], trainable: Trainable | None) -> LoadedPipeline:
    """Returns a pipeline in the place of a folder.

    Args:
        pipe: The pipeline.
        kind: What it is expected to be, for messages.
        parts: The names of its parts.
        trainable: What will be trained of the denoiser.
    """
    name = getattr(getattr(pipe, "config", None), "_name_or_path", None) or type(pipe).__name__
    return LoadedPipeline(name, kind, parts, held=pipe, keep=isinstance(trainable, FullWeights))
