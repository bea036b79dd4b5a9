"""A whole pipeline of diffusers whose denoiser contains the trained weights."""

from pathlib import Path
from typing import Any

from torch import nn

from rlr.models.adapters import merged
from rlr.models.export.base import Exporter
from rlr.models.export.lora_file import use_pipeline
from rlr.models.latent import LatentDiffusion


class Merged(Exporter):
    r"""Writes a folder in diffusers' layout, which ``from_pretrained`` of the model's pipeline reads.

    A LoRA is added to the weights: :math:`W + \frac{\alpha}{r} B A`, rounded to the type of the frozen weights.
    """

    def check(self, model: LatentDiffusion) -> None:
        model.pipeline_class()

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        network: Any = model.fresh_network()
        network.load_state_dict(merged(model.network))
        with model.text.opened() as encoder:
            model.pipeline(network, encoder).save_pretrained(folder)

    def reload(self, model: LatentDiffusion, network: Any, folder: Path) -> Any:
        again = {
            name: type(part).from_pretrained(folder / name, torch_dtype=model.dtype).to(model.device).eval()
            for name, part in model.named(network).items()
        }
        return nn.ModuleDict(again) if len(again) > 1 else next(iter(again.values()))

    def usage(self, model: LatentDiffusion, base: str, folder: str) -> str:
        return use_pipeline(model, f'from_pretrained("{folder}", torch_dtype=torch.float16)')
