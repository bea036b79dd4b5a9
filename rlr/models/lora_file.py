"""Reading a LoRA that another program has trained."""

import warnings
from pathlib import Path
from typing import Any

from diffusers import (
    CogVideoXTransformer3DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    HunyuanVideo15Transformer3DModel,
    LTXVideoTransformer3DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
    ZImageTransformer2DModel,
)
from diffusers.loaders import (
    CogVideoXLoraLoaderMixin,
    Flux2LoraLoaderMixin,
    FluxLoraLoaderMixin,
    HunyuanVideoLoraLoaderMixin,
    LTXVideoLoraLoaderMixin,
    SD3LoraLoaderMixin,
    StableDiffusionLoraLoaderMixin,
)
from diffusers.loaders.lora_pipeline import QwenImageLoraLoaderMixin, WanLoraLoaderMixin, ZImageLoraLoaderMixin
from torch import nn

from rlr.io.weights import UNREADABLE
from rlr.models.integrity import check_file

LOADERS: dict[type[nn.Module], Any] = {
    UNet2DConditionModel: StableDiffusionLoraLoaderMixin,
    SD3Transformer2DModel: SD3LoraLoaderMixin,
    FluxTransformer2DModel: FluxLoraLoaderMixin,
    Flux2Transformer2DModel: Flux2LoraLoaderMixin,
    QwenImageTransformer2DModel: QwenImageLoraLoaderMixin,
    WanTransformer3DModel: WanLoraLoaderMixin,
    ZImageTransformer2DModel: ZImageLoraLoaderMixin,
    CogVideoXTransformer3DModel: CogVideoXLoraLoaderMixin,
    LTXVideoTransformer3DModel: LTXVideoLoraLoaderMixin,
    HunyuanVideo15Transformer3DModel: HunyuanVideoLoraLoaderMixin,
}
"""What reads the files of a network's LoRA."""
PREFIXES: dict[type[nn.Module], str] = {kind: "transformer" for kind in LOADERS} | {UNet2DConditionModel: "unet"}
"""What the names of a network's layers begin with in a file."""


def load_lora(network: Any, path: str, adapter: str) -> None:
    """Adds the LoRA of a file to a network, with the file's ranks, scales and layers.

    Args:
        network: A U-Net or a transformer of diffusers.
        path: A ``.safetensors`` file under the names of diffusers or of kohya's scripts.
        adapter: The name of the adapter in peft.

    Raises:
        ValueError: If the file cannot be read, or holds no LoRA of this network.
    """
    kind, file = type(network), Path(path).expanduser()
    if kind not in LOADERS:
        known = ", ".join(other.__name__ for other in LOADERS)
        raise ValueError(f"LoRA.start: expected a network of {known}, found a {kind.__name__}; leave out start")
    check_file(file)
    prefix = PREFIXES[kind]
    try:
        state, alphas, metadata = _read(network, file)
        others = sorted(name for name in state if not name.startswith(f"{prefix}."))
        if len(others) == len(state):
            raise ValueError(f"no name in it begins with {prefix!r}")
        network.load_lora_adapter(state, prefix, network_alphas=alphas, metadata=metadata, adapter_name=adapter)
    except UNREADABLE as error:
        cause = str(error).strip().split("\n")[0].rstrip(".")
        raise ValueError(
            f"LoRA.start: expected a LoRA of a {kind.__name__} under the names of diffusers or kohya, got {file} ({cause})"
        ) from error
    if others:
        warnings.warn(f"{file}: {len(others)} weights of other parts are not read, such as {others[0]!r}", stacklevel=3)


def _read(network: Any, file: Path) -> tuple[dict[str, Any], Any, Any]:
    options: dict[str, Any] = {"weight_name": file.name, "return_lora_metadata": True, "return_alphas": True}
    if network.config.get("addition_embed_type") == "text_time":
        # by it diffusers maps the authors' names of SDXL's blocks
        options["unet_config"] = network.config
    # some loaders return no alphas
    state, *alphas, metadata = LOADERS[type(network)].lora_state_dict(str(file.parent), **options)
    return state, alphas[0] if alphas else None, metadata
