"""A LoRA for the pipelines of diffusers."""

from pathlib import Path
from typing import Any, cast

from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict

from rlr.models.adapters import ADAPTER
from rlr.models.export.base import Exporter, check_lora
from rlr.models.export.kohya import load_by_diffusers
from rlr.models.folder import silenced
from rlr.models.latent import LatentDiffusion


class DiffusersLoRA(Exporter):
    """Writes ``pytorch_lora_weights.safetensors``, which ``load_lora_weights`` of the model's pipeline reads."""

    def check(self, model: LatentDiffusion) -> None:
        check_lora(model, self)
        model.pipeline_class()

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        layers: dict[str, Any] = {}
        for name, network in model.networks().items():
            weights = get_peft_model_state_dict(network, adapter_name=ADAPTER)
            layers[f"{name}_lora_layers"] = convert_state_dict_to_diffusers(weights) if name == "unet" else weights
            # the weights alone do not tell alpha: loaders would take the rank for it
            config = cast(dict[str, LoraConfig], network.peft_config)[ADAPTER].to_dict()
            layers[f"{name}_lora_adapter_metadata"] = config
        model.pipeline_class().save_lora_weights(folder, **layers)

    def reload(self, model: LatentDiffusion, network: Any, folder: Path) -> Any:
        # diffusers warns that the file has no LoRA of the text encoder
        with silenced(["diffusers.loaders.lora_base"]):
            model.pipeline(network).load_lora_weights(folder)
        return network

    def usage(self, model: LatentDiffusion, base: str, folder: str) -> str:
        return load_by_diffusers(model, base, f'"{folder}"')
