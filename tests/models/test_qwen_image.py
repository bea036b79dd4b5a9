"""Qwen-Image: packing, masks, and guidance that keeps norms."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import QwenImagePipeline

from rlr.chain import Chain
from rlr.models import Frozen, Guidance, QwenImage, RescaledGuidance, StableDiffusion
from rlr.models.packing import pack, unpack
from rlr.samplers import FlowSDE
from tests.models.families import PROMPTS

Folder = Callable[..., Path]


def build(folder: Path) -> QwenImage:
    return QwenImage(str(folder), trainable=Frozen(), size=(24, 32), tokens=64)


def test_packing_is_that_of_the_pipeline_and_invertible() -> None:
    x = torch.arange(2.0 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    assert torch.equal(pack(x), QwenImagePipeline._pack_latents(x, 2, 3, 4, 6))
    assert torch.equal(unpack(pack(x), 4, 6), x)


def test_rescaled_guidance_has_the_norms_of_the_prompt(random_qwenimage: Folder) -> None:
    """The formula on velocities, token by token."""
    model, sigma, s = build(random_qwenimage()), 0.7, 4.0
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *model.latent_shape(model.size), generator=generator)
    guided = RescaledGuidance(model, s)
    with torch.no_grad():
        v_s = (x - guided.denoise(x, sigma, guided.encode(PROMPTS))) / sigma
        v_c, v_0 = ((x - model.denoise(x, sigma, model.encode(texts))) / sigma for texts in (PROMPTS, ["", ""]))
    toward, away, found = (pack(v) for v in (v_c, v_0, v_s))
    combined = away + s * (toward - away)
    expected = combined * toward.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (combined - expected).abs().max() > 1e-2


def test_plain_guidance_is_not_that_of_the_pipeline(random_qwenimage: Folder) -> None:
    model = build(random_qwenimage())
    images = []
    for guidance in (Guidance, RescaledGuidance):
        chain = Chain(guidance(model, 4.0), FlowSDE(3, noise_level=0.0))
        images.append(model.decode(chain.sample(chain.encode(PROMPTS), chain.draw([1, 2])).states[0]))
    assert (images[0] - images[1]).abs().max() > 1e-3


def test_a_velocity_of_zero_has_a_gradient(random_qwenimage: Folder) -> None:
    guided = RescaledGuidance(build(random_qwenimage()), 4.0)
    x = torch.ones(1, 4, 4, 4)
    positive = x.clone().requires_grad_()
    estimate = guided.combine(x, positive, x.clone(), 4.0)
    estimate.sum().backward()
    assert torch.equal(estimate, x)
    assert positive.grad is not None
    assert positive.grad.isfinite().all()


def test_a_model_of_noise_is_refused(random_sd: Folder) -> None:
    with pytest.raises(ValueError, match="expected a rectified flow, found StableDiffusion"):
        RescaledGuidance(StableDiffusion(str(random_sd()), trainable=Frozen()))


def test_the_transformer_reads_no_padding(random_qwenimage: Folder) -> None:
    model = build(random_qwenimage())
    condition = model.encode(PROMPTS)
    mask = condition.mask("text")
    assert mask is not None
    lengths = mask.sum(1)
    assert lengths[0] < lengths[1] == mask.shape[1]
    x = torch.zeros(2, *model.latent_shape(model.size))
    with torch.no_grad():
        expected = model.denoise(x, 0.9, condition)
        condition.tensors["text"][~mask] = 7.0
        assert torch.equal(model.denoise(x, 0.9, condition), expected)
