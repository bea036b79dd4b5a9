"""A LoRA under the names of kohya's scripts, which AUTOMATIC1111's web UI, ComfyUI and diffusers read."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from rlr.models.adapters import additions
from rlr.models.export.base import check_unet
from rlr.models.export.lora_file import LoRAFile
from rlr.models.latent import LatentDiffusion

WIDTH = 1024
"""The width of the text embeddings of Stable Diffusion 2.x."""


class Kohya(LoRAFile):
    r"""Writes ``lora.safetensors`` with ``lora_unet_….lora_down.weight``, ``….lora_up.weight`` and ``….alpha`` of each layer.

    The name of a layer is that in diffusers with ``_`` in the place of each ``.``. Readers add
    :math:`\frac{\alpha}{r} B A`, with :math:`A` the down and :math:`B` the up weight.

    References:
        | networks/lora.py of https://github.com/kohya-ss/sd-scripts
    """

    def check(self, model: LatentDiffusion) -> None:
        super().check(model)
        check_unet(model, self)

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        state, found = {}, additions(model.network)
        for addition in found:
            name = f"lora_unet_{addition.name.replace('.', '_')}"
            state[f"{name}.lora_down.weight"] = addition.down
            state[f"{name}.lora_up.weight"] = addition.up
            state[f"{name}.alpha"] = torch.tensor(addition.alpha)
        first = found[0]
        # the web UI lists a LoRA with the models of its version
        facts = {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(len(first.down)),
            "ss_network_alpha": str(first.alpha),
            "ss_v2": str(model.network.config.cross_attention_dim == WIDTH),
        }
        save_file(state, folder / self.file, {"format": "pt", **facts})
