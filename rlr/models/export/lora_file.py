"""A LoRA in one file that the pipelines of diffusers read."""

from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE

from rlr.models.export.base import Exporter, check_lora
from rlr.models.folder import silenced
from rlr.models.latent import LatentDiffusion


class LoRAFile(Exporter):
    """Writes one file, which ``load_lora_weights`` of the model's pipeline reads.

    Attributes:
        file: The name of the file.
    """

    file: str = "lora.safetensors"
    tags = ("lora",)

    def check(self, model: LatentDiffusion) -> None:
        check_lora(model, self)
        model.pipeline_class()

    def reload(self, model: LatentDiffusion, network: Any, folder: Path) -> Any:
        # diffusers warns that the file has no LoRA of the text encoder
        with silenced(["diffusers.loaders.lora_base"]):
            model.pipeline(network).load_lora_weights(folder, weight_name=self.file)
        return network

    def usage(self, model: LatentDiffusion, base: str, folder: str) -> str:
        # diffusers finds a file of its own name
        source = f'"{folder}"' if self.file == LORA_WEIGHT_NAME_SAFE else f'"{folder}", weight_name="{self.file}"'
        load = f'from_pretrained("{base}", torch_dtype=torch.float16)'
        return use_pipeline(model, load, f"pipe.load_lora_weights({source})\n")


def use_pipeline(model: LatentDiffusion, load: str, more: str = "") -> str:
    """Returns Python code that makes an image with the pipeline of a model.

    Args:
        model: The model.
        load: The call of the pipeline's class that loads it.
        more: Lines after it.
    """
    name = model.pipeline_class().__name__
    return (
        f"import torch\nfrom diffusers import {name}\n\n"
        f'pipe = {name}.{load}.to("cuda")\n'
        f"{more}"
        'pipe("a photo of a cat").images[0].save("cat.png")'
    )
