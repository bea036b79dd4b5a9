"""A LoRA for the pipelines of diffusers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from rlr.models.adapters import ADAPTER
from rlr.models.export.lora_file import LoRAFile
from rlr.models.latent import LatentDiffusion
from rlr.models.lora_file import LOADERS

NAMINGS: dict[type[nn.Module], Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    UNet2DConditionModel: convert_state_dict_to_diffusers
}
"""What renames a network's layers where pipelines do not read the names of peft."""


class DiffusersLoRA(LoRAFile):
    """Writes ``pytorch_lora_weights.safetensors``, which ``load_lora_weights`` of the model's pipeline reads.

    A second transformer has a file of its own, ``transformer_2.safetensors``, which is read with ``load_into_transformer_2=True``.
    The pipeline of HunyuanVideo 1.5 has no such method, and ``load_lora_adapter`` of its transformer reads the file.
    """

    file = LORA_WEIGHT_NAME_SAFE

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        for (name, network), file in zip(model.networks().items(), self.files(model), strict=True):
            weights = get_peft_model_state_dict(network, adapter_name=ADAPTER)
            layers = NAMINGS.get(type(network), dict)(weights)
            # the weights alone do not tell alpha: loaders would take the rank for it
            config = cast(dict[str, LoraConfig], network.peft_config)[ADAPTER].to_dict()
            # diffusers' own names end before the number of a second network
            part = name.removesuffix("_2")
            options: dict[str, Any] = {f"{part}_lora_layers": layers, f"{part}_lora_adapter_metadata": config}
            # a pipeline without LoRAs has a network that reads them itself
            pipeline = model.pipeline_class()
            writer = pipeline if hasattr(pipeline, "save_lora_weights") else LOADERS[type(network)]
            writer.save_lora_weights(folder, weight_name=file, **options)
