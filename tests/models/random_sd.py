"""A small Stable Diffusion with random weights, in the folder layout of diffusers."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ("a", "the", "red", "blue", "green", "circle", "square", "two", "three", "on", "background")


def tokenizer(length: int = 16) -> CLIPTokenizer:
    """Returns a byte-pair tokenizer: single characters, and merges that make one token of each of ``WORDS``."""
    characters = [chr(code) for code in range(33, 127)]
    merges = []
    for word in WORDS:
        *pieces, last = [*word[:-1], word[-1] + "</w>"]
        head = pieces[0] if pieces else last
        for piece in [*pieces[1:], last] if pieces else []:
            merges.append((head, piece))
            head += piece
    merges = list(dict.fromkeys(merges))
    tokens = [*characters, *(c + "</w>" for c in characters), *("".join(pair) for pair in merges), START, END]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )


def text_encoder(tokens: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokens.model_max_length,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return CLIPTextModel(config)


def write_random_sd(
    folder: str | Path,
    prediction: str = "epsilon",
    spacing: str = "leading",
    length: int = 16,
    seed: int = 0,
    scheduler: type = DDIMScheduler,
    **options: object,
) -> Path:
    """Writes a random Stable Diffusion of 32 x 32 images (latents 4 x 8 x 8) and returns its folder.

    Args:
        folder: Where to write it.
        prediction: The scheduler's ``prediction_type``: ``epsilon``, ``v_prediction`` or ``sample``.
        spacing: The scheduler's ``timestep_spacing``: ``leading``, ``trailing`` or ``linspace``.
        length: The tokenizer's ``model_max_length``.
        seed: Decides the weights; the global generator is left as it was.
        scheduler: The scheduler's class: ``DDIMScheduler`` or ``PNDMScheduler``.
        options: Further settings of the scheduler.
    """
    settings: dict[str, object] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": prediction,
        "timestep_spacing": spacing,
    }
    settings |= {"skip_prk_steps": True} if scheduler is PNDMScheduler else {"clip_sample": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokens = tokenizer(length)
        pipeline = StableDiffusionPipeline(
            vae=vae(),
            text_encoder=text_encoder(tokens),
            tokenizer=tokens,
            unet=unet(),
            scheduler=scheduler(**(settings | options)),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return Path(folder)
