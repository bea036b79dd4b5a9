"""Small FLUX.2 models with random weights, in the folder layout of diffusers: a klein with Qwen3, and a dev with Mistral 3."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralImageProcessor,
    PixtralProcessor,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.models.qwen_tokenizer import qwen_tokenizer
from tests.models.random_flux import excite

WIDTH = 12
"""The width of the language models' states."""
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}[SYSTEM_PROMPT]{{ message['content'][0]['text'] }}[/SYSTEM_PROMPT]"
    "{% else %}[INST]{{ message['content'][0]['text'] }}[/INST]{% endif %}{% endfor %}"
)
"""Mistral's chat template, as far as one text needs it."""


def transformer(guidance: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )


def vae(seed: int) -> AutoencoderKLFlux2:
    """Returns an autoencoder whose batch norm has statistics of its own."""
    network = AutoencoderKLFlux2(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )
    generator = torch.Generator().manual_seed(seed)
    network.bn.running_mean.copy_(torch.randn(16, generator=generator))
    network.bn.running_var.copy_(0.5 + torch.rand(16, generator=generator))
    return network


def qwen3(vocabulary: int) -> Qwen3ForCausalLM:
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 28, "head_dim": 4}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, num_attention_heads=3, num_key_value_heads=1, **sizes))


def mistral3(vocabulary: int) -> Mistral3ForConditionalGeneration:
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": 16, "head_dim": 4, "num_attention_heads": 3}
    words = MistralConfig(vocab_size=vocabulary, num_key_value_heads=1, num_hidden_layers=31, **sizes)
    images = PixtralVisionConfig(
        **sizes | {"num_attention_heads": 3}, num_hidden_layers=1, image_size=32, patch_size=16
    )
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=words, vision_config=images))


def mistral_processor() -> PixtralProcessor:
    """Returns a processor with a byte-pair tokenizer of 256 bytes and the special tokens."""
    names = ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
    names += ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    bytes_ = Tokenizer(models.BPE())
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, special_tokens=names, show_progress=False)
    bytes_.train_from_iterator(["a red circle on the blue background"], trainer)
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=bytes_,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        additional_special_tokens=names[4:],
    )
    return PixtralProcessor(image_processor=PixtralImageProcessor(), tokenizer=tokens, chat_template=TEMPLATE)


def write_random_flux2(folder: str | Path, seed: int = 0, dev: bool = False, distilled: bool = False) -> Path:
    """Writes a random FLUX.2 (latents 16 x 8 x 8 for 32 x 32 images) and returns its folder.

    Args:
        folder: Where to write it.
        seed: Decides the weights; the global generator is left as it was.
        dev: Whether it is a dev, which reads the guidance scale, or else a klein.
        distilled: Whether a klein says of itself that it was distilled.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = transformer(guidance=dev)
        excite(network, seed)
        shared: dict[str, Any] = {
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            "vae": vae(seed),
            "transformer": network,
        }
        if dev:
            words = mistral_processor()
            pipeline = Flux2Pipeline(text_encoder=mistral3(len(words.tokenizer)), tokenizer=words, **shared)
        else:
            words = qwen_tokenizer()
            encoder = qwen3(len(words))
            pipeline = Flux2KleinPipeline(text_encoder=encoder, tokenizer=words, is_distilled=distilled, **shared)
    pipeline.save_pretrained(folder)
    return Path(folder)
