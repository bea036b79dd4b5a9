"""A LoRA for peft."""

from pathlib import Path
from typing import Any, cast

from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from rlr.models.adapters import ADAPTER
from rlr.models.export.base import Exporter, check_lora
from rlr.models.latent import LatentDiffusion

PREFIX = "base_model.model."
"""Before every name in peft's files."""


class PeftAdapter(Exporter):
    """Writes ``adapter_config.json`` and ``adapter_model.safetensors``, which ``PeftModel.from_pretrained`` reads."""

    library = "peft"
    tags = ("lora",)

    def check(self, model: LatentDiffusion) -> None:
        check_lora(model, self)

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        network = model.network
        weights = get_peft_model_state_dict(network, adapter_name=ADAPTER)
        named = {PREFIX + name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
        save_file(named, folder / "adapter_model.safetensors", {"format": "pt"})
        cast(dict[str, LoraConfig], network.peft_config)[ADAPTER].save_pretrained(str(folder))

    def reload(self, model: LatentDiffusion, network: Any, folder: Path) -> Any:
        PeftModel.from_pretrained(network, str(folder))
        # peft adds the layers to the network itself
        return network

    def usage(self, model: LatentDiffusion, base: str, folder: str) -> str:
        (part,), network = model.networks(), type(model.network).__name__
        return (
            f"from diffusers import {network}\nfrom peft import PeftModel\n\n"
            f'network = {network}.from_pretrained("{base}", subfolder="{part}")\n'
            f'PeftModel.from_pretrained(network, "{folder}")'
        )
