"""A LoRA under names of ComfyUI's key map."""

from collections.abc import Callable
from pathlib import Path

from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from rlr.models.adapters import ATTENTION, Addition, additions
from rlr.models.export.lora_file import LoRAFile
from rlr.models.latent import LatentDiffusion


class ComfyUI(LoRAFile):
    r"""Writes ``lora.safetensors``, which the node *Load LoRA* reads.

    A layer of a U-Net is named ``unet.….attn1.processor.to_q_lora.up.weight``, or ``unet.….lora.up.weight`` outside
    attentions, a layer of Stable Diffusion 3 ``transformer.….lora_B.weight``. No :math:`\alpha` is stated: the up weight is
    :math:`\frac{\alpha}{r} B`. diffusers reads the file, too.

    References:
        | model_lora_keys_unet in comfy/lora.py of https://github.com/comfyanonymous/ComfyUI
    """

    def check(self, model: LatentDiffusion) -> None:
        super().check(model)
        if model.size.frames is not None:
            raise ValueError(
                f"ComfyUI reads the LoRA of a {type(model).__name__} under its authors' names, which are not written; use "
                "DiffusersLoRA"
            )

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        ((prefix, network),) = model.networks().items()
        names = NAMINGS.get(type(network), _transformer_names)
        state: dict[str, Tensor] = {}
        for addition in additions(network):
            down, up = names(addition)
            state |= {f"{prefix}.{down}": addition.down, f"{prefix}.{up}": addition.scaled_up}
        save_file(state, folder / self.file, {"format": "pt"})


def _unet_names(addition: Addition) -> tuple[str, str]:
    """Returns the names of the down and the up weight without their prefix."""
    # the layers of an attention have names of their own in the map of a U-Net
    for projection in ATTENTION:
        if addition.name.endswith(f".{projection}"):
            parent = addition.name.removesuffix(f".{projection}")
            layer = f"{parent}.processor.{projection.removesuffix('.0')}_lora"
            return f"{layer}.down.weight", f"{layer}.up.weight"
    return f"{addition.name}.lora.down.weight", f"{addition.name}.lora.up.weight"


def _transformer_names(addition: Addition) -> tuple[str, str]:
    return f"{addition.name}.lora_A.weight", f"{addition.name}.lora_B.weight"


NAMINGS: dict[type[nn.Module], Callable[[Addition], tuple[str, str]]] = {UNet2DConditionModel: _unet_names}
"""The names of a network's layers where they are not those of a transformer."""
