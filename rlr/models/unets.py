"""The U-Nets of diffusers that are not plain text-to-image ones, and the settings by which they are recognized."""

from collections.abc import Mapping
from typing import Any

INPUTS = {
    5: "a depth-to-image U-Net",
    7: "a U-Net of the x4 upscaler",
    8: "an InstructPix2Pix or image-variation U-Net",
    9: "an inpainting U-Net",
}
"""By the channels of the input, where a latent has 4."""


def check_unet(config: Mapping[str, Any], channels: int, width: int, source: str) -> None:
    """Checks that a U-Net maps a noisy latent, a time and text embeddings to one latent.

    Args:
        config: The U-Net's configuration.
        channels: The channels of the autoencoder's latent.
        width: The width of the text encoder's embedding.
        source: The file, for the message.

    Raises:
        ValueError: If the U-Net needs other inputs, has other outputs, or belongs to another text encoder or autoencoder.
    """
    other = _other_kind(config, channels)
    if other:
        raise ValueError(
            f"{source} is {other}; StableDiffusion loads the text-to-image models 1.x and 2.x (set path to one of these)"
        )
    expected = config["cross_attention_dim"]
    if not isinstance(expected, int) or expected != width:
        raise ValueError(
            f"{source} reads text embeddings of width {expected}, and text_encoder/ makes width {width}; take both parts "
            "from one model"
        )


def check_sdxl_unet(config: Mapping[str, Any], width: int, projection: int, source: str) -> None:
    """Checks that a U-Net is that of a text-to-image Stable Diffusion XL.

    Args:
        config: The U-Net's configuration.
        width: The width of both text encoders' embeddings side by side.
        projection: The width of the pooled embedding.
        source: The file, for the message.

    Raises:
        ValueError: If the U-Net is of another kind, or belongs to other text encoders.
    """
    inputs, outputs = config["in_channels"], config["out_channels"]
    if config["addition_embed_type"] != "text_time" or inputs != outputs or config["time_cond_proj_dim"] is not None:
        raise ValueError(
            f"{source}: expected a U-Net with the added conditions of SDXL (addition_embed_type: text_time) that maps a latent to "
            f"a latent, found addition_embed_type: {config['addition_embed_type']}, in_channels: {inputs}, out_channels: "
            f"{outputs}, time_cond_proj_dim: {config['time_cond_proj_dim']}; give path: a text-to-image Stable Diffusion XL"
        )
    expected = config["cross_attention_dim"], config["projection_class_embeddings_input_dim"]
    # six numbers of the image's size, each embedded
    found = width, 6 * config["addition_time_embed_dim"] + projection
    if expected != found:
        raise ValueError(
            f"{source} reads text embeddings of width {expected[0]} and added conditions of width {expected[1]}, and the text "
            f"encoders make widths {found[0]} and {found[1]}; take all parts from one base model (the refiner is another)"
        )


def _other_kind(config: Mapping[str, Any], channels: int) -> str | None:
    """Returns what a U-Net is, or None if it is a plain text-to-image U-Net."""
    if config["addition_embed_type"] == "text_time":
        return "the U-Net of an SDXL, which StableDiffusionXL loads"
    inputs, outputs = config["in_channels"], config["out_channels"]
    if inputs != channels:
        return f"{INPUTS.get(inputs, 'another U-Net')} (in_channels: {inputs}, and vae/ has latents of {channels})"
    if outputs == 2 * inputs:
        return f"a U-Net with a learned variance (out_channels: {outputs}, twice in_channels)"
    if outputs != inputs:
        return f"another U-Net (out_channels: {outputs}, in_channels: {inputs})"
    if config["time_cond_proj_dim"] is not None:
        return "a U-Net that reads the guidance scale (time_cond_proj_dim), as a latent consistency model's"
    extra = [
        key
        for key in ("class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim_type")
        if config[key]
    ]
    return f"a U-Net with an input besides the prompt ({extra[0]}: {config[extra[0]]})" if extra else None
