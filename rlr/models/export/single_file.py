"""A Stable Diffusion in one file, under the names of its authors."""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from rlr.models.adapters import merged
from rlr.models.export.base import Exporter, check_unet
from rlr.models.export.lora_file import use_pipeline
from rlr.models.folder import silenced
from rlr.models.latent import LatentDiffusion
from rlr.models.original import original_state

FILE, CONFIG = "model.safetensors", "config"
"""The file, and the folder of the parts' configurations and the tokenizer beside it."""


class SingleFile(Exporter):
    """Writes ``model.safetensors``: U-Net, autoencoder and text encoder, with a LoRA added to the weights.

    ComfyUI, AUTOMATIC1111's web UI and ``StableDiffusionPipeline.from_single_file`` read it. Beside it stands ``config``, a
    folder in diffusers' layout without weights, for reading it without a network connection.
    """

    def check(self, model: LatentDiffusion) -> None:
        check_unet(model, self)

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        with model.text.opened() as encoder:
            state = original_state(merged(model.network), model.vae, encoder, model.network.config)
            pipeline = model.pipeline(model.network, encoder)
            weights = {name: w.detach().cpu().contiguous().clone() for name, w in state.items()}
        save_file(weights, folder / FILE, {"format": "pt"})
        pipeline.save_config(folder / CONFIG)
        for name, part in pipeline.components.items():
            _save_config(part, folder / CONFIG / name)

    def reload(self, model: LatentDiffusion, network: Any, folder: Path) -> Any:
        kind = model.pipeline_class()
        options = {"config": str(folder / CONFIG), "torch_dtype": model.dtype, "local_files_only": True}
        with silenced(["diffusers.models.modeling_utils"]):
            again = kind.from_single_file(str(folder / FILE), safety_checker=None, feature_extractor=None, **options)
        with model.text.opened() as encoder:
            _check_same(again.vae, model.vae, "vae")
            _check_same(again.text_encoder, encoder, "text_encoder")
        return again.unet.to(model.device).eval()

    def usage(self, model: LatentDiffusion, base: str, folder: str) -> str:
        source = f'"{folder}/{FILE}", config="{folder}/{CONFIG}"'
        return use_pipeline(model, f"from_single_file({source}, torch_dtype=torch.float16)")


def _save_config(part: Any, folder: Path) -> None:
    """Writes what a part of a pipeline is made from, without weights."""
    if isinstance(part, PreTrainedModel):
        part.config.save_pretrained(folder)
    elif isinstance(part, nn.Module):
        cast(Any, part).save_config(folder)
    elif part is not None:
        part.save_pretrained(folder)


def _check_same(found: nn.Module, expected: nn.Module, part: str) -> None:
    """Raises ValueError unless two networks have the same weights, to the bit."""
    ours, theirs = expected.state_dict(), found.state_dict()
    for name, weight in ours.items():
        if name not in theirs or not torch.equal(theirs[name].cpu(), weight.cpu()):
            raise ValueError(
                f"SingleFile: the weight {name} of {part} is another one in the reloaded file; nothing was written. Export "
                "with Merged, and report this model"
            )
