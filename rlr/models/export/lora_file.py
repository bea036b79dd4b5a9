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

    def files(self, model: LatentDiffusion) -> list[str]:
        """Returns the names of the files, one for each denoiser."""
        return [self.file, *(f"{name}.safetensors" for name in list(model.networks())[1:])]

    def reload(self, model: LatentDiffusion, network: Any, folder: Path) -> Any:
        pipeline = model.pipeline(network)
        # diffusers warns that the file has no LoRA of the text encoder
        with silenced(["diffusers.loaders.lora_base"]):
            for file, options in zip(self.files(model), ({}, {"load_into_transformer_2": True}), strict=False):
                if hasattr(pipeline, "load_lora_weights"):
                    pipeline.load_lora_weights(folder, weight_name=file, **options)
                else:
                    network.load_lora_adapter(folder, prefix=next(iter(model.networks())), weight_name=file)
        return network

    def usage(self, model: LatentDiffusion, base: str, folder: str) -> str:
        load = f'from_pretrained("{base}", torch_dtype=torch.float16)'
        if not hasattr(model.pipeline_class(), "load_lora_weights"):
            (part,) = model.networks()
            read = f'pipe.{part}.load_lora_adapter("{folder}", prefix="{part}", weight_name="{self.file}")\n'
            return use_pipeline(model, load, read)
        # diffusers finds a file of its own name
        source = f'"{folder}"' if self.file == LORA_WEIGHT_NAME_SAFE else f'"{folder}", weight_name="{self.file}"'
        calls = [f"pipe.load_lora_weights({source})\n"]
        for file in self.files(model)[1:]:
            calls.append(f'pipe.load_lora_weights("{folder}", weight_name="{file}", load_into_transformer_2=True)\n')
        return use_pipeline(model, load, "".join(calls))


def use_pipeline(model: LatentDiffusion, load: str, more: str = "") -> str:
    """Returns Python code that makes an image or a video with the pipeline of a model.

    Args:
        model: The model.
        load: The call of the pipeline's class that loads it.
        more: Lines after it.
    """
    name, export = model.pipeline_class().__name__, ""
    make = 'pipe("a photo of a cat").images[0].save("cat.png")'
    if model.size.frames:
        export = "from diffusers.utils import export_to_video\n"
        make = f'export_to_video(pipe("a cat that runs").frames[0], "cat.mp4", fps={model.size.fps:g})'
    return f'import torch\nfrom diffusers import {name}\n{export}\npipe = {name}.{load}.to("cuda")\n{more}{make}'
