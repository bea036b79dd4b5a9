"""The denoisers of the published checkpoints, without their weights: number of weights, names, and layers of a LoRA."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel, FluxTransformer2DModel, UNet2DConditionModel

from rlr.models import LoRA, flux, flux2
from rlr.models.adapters import ATTENTION
from rlr.models.unets import check_sdxl_unet
from tests.models.published import FLUX1, FLUX1_BYTES, FLUX1_DOUBLE, FLUX1_ENDS, FLUX1_SINGLE, FLUX2, FLUX2_SIZES, SDXL


def empty(kind: Any, config: dict[str, Any]) -> Any:
    """Returns a network whose weights have no memory."""
    with torch.device("meta"):
        return kind.from_config(config)


def count(network: Any) -> int:
    return sum(weight.numel() for weight in network.parameters())


def lora_layers(network: Any, targets: tuple[str, ...]) -> int:
    """Returns how many layers a LoRA adds to."""
    network.requires_grad_(False)
    LoRA(4).attach(network, targets)
    return sum(weight.requires_grad for weight in network.parameters()) // 2


def test_stable_diffusion_xl() -> None:
    network = empty(UNet2DConditionModel, SDXL)
    # 2.6 billion in Table 1 of the paper
    assert count(network) == 2_567_463_684
    check_sdxl_unet(network.config, 768 + 1280, 1280, "config.json")
    with pytest.raises(ValueError, match=r"reads text embeddings of width 2048 .* make widths 1280 and"):
        check_sdxl_unet(network.config, 1280, 1280, "config.json")
    # 70 blocks with two attentions of four projections
    assert lora_layers(network, ATTENTION) == 70 * 2 * 4


def test_flux1_dev() -> None:
    network = empty(FluxTransformer2DModel, FLUX1)
    assert 2 * count(network) == FLUX1_BYTES
    names = {name for name in network.state_dict() if not name.startswith("time_text_embed.")}
    blocks = {f"single_transformer_blocks.{k}": FLUX1_SINGLE for k in range(38)}
    blocks |= {f"transformer_blocks.{k}": FLUX1_DOUBLE for k in range(19)}
    assert names == FLUX1_ENDS | {f"{block}.{name}" for block, inner in blocks.items() for name in inner}
    assert lora_layers(network, flux.TARGETS) == 19 * 12 + 38 * 3


@pytest.mark.parametrize(
    ("size", "weights", "layers"),
    [
        ("klein-4B", 3_875_544_576, 5 * 12 + 20),
        ("klein-9B", 9_078_581_248, 8 * 12 + 24),
        ("dev", 32_223_281_152, 8 * 12 + 48),
    ],
)
def test_flux2(size: str, weights: int, layers: int) -> None:
    network = empty(Flux2Transformer2DModel, FLUX2 | FLUX2_SIZES[size])
    # published are 4, 9 and 32 billion
    assert count(network) == weights
    assert lora_layers(network, flux2.TARGETS) == layers


def test_the_autoencoder_of_flux2_fits_its_transformer() -> None:
    network = empty(AutoencoderKLFlux2, {"latent_channels": 32})
    assert network.bn.num_features == FLUX2["in_channels"] == 4 * network.config.latent_channels
