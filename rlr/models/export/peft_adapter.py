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
    """Writes ``adapter_config.json`` and ``adapter_model.safetensors``, which ``PeftModel.from_pretrained`` reads.

    A second transformer has a folder of its own, ``transformer_2``.
    """

    library = "peft"
    tags = ("lora",)

    def check(self, model: LatentDiffusion) -> None:
        check_lora(model, self)

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        for network, place in zip(model.networks().values(), _folders(model, folder), strict=True):
            weights = get_peft_model_state_dict(network, adapter_name=ADAPTER)
            named = {PREFIX + name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
            place.mkdir(exist_ok=True)
            save_file(named, place / "adapter_model.safetensors", {"format": "pt"})
            cast(dict[str, LoraConfig], network.peft_config)[ADAPTER].save_pretrained(str(place))

    def reload(self, model: LatentDiffusion, network: Any, folder: Path) -> Any:
        for part, place in zip(model.named(network).values(), _folders(model, folder), strict=True):
            PeftModel.from_pretrained(part, str(place))
        # peft adds the layers to the network itself
        return network

    def usage(self, model: LatentDiffusion, base: str, folder: str) -> str:
        first = next(iter(model.networks().values()))
        lines = [f"from diffusers import {type(first).__name__}\nfrom peft import PeftModel\n"]
        for (part, network), place in zip(model.networks().items(), _folders(model, Path(folder)), strict=True):
            lines += [
                f'network = {type(network).__name__}.from_pretrained("{base}", subfolder="{part}")',
                f'PeftModel.from_pretrained(network, "{place}")',
            ]
        return "\n".join(lines)


def _folders(model: LatentDiffusion, folder: Path) -> list[Path]:
    """Returns the folder of each denoiser's LoRA."""
    return [folder, *(folder / name for name in list(model.networks())[1:])]
