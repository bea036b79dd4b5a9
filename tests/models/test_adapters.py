from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rlr.models import Frozen, FullWeights, Guidance, LoRA, StableDiffusion

Folder = Callable[..., Path]
X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
PROMPTS = ["a red circle", "two blue squares"]


def estimate(model: StableDiffusion) -> Tensor:
    with torch.no_grad():
        return model.denoise(X, 400, model.encode(PROMPTS))


def shift(model: StableDiffusion, scale: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(11)
    for weight in model.trainable.values():
        weight.data += scale * torch.randn(weight.shape, generator=generator)


def linears(unet: nn.Module, ends: tuple[str, ...]) -> list[nn.Linear]:
    return [m for name, m in unet.named_modules() if isinstance(m, nn.Linear) and name.endswith(ends)]


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("targets", [("to_q", "to_k", "to_v", "to_out.0"), ("to_q",)])
def test_counts_follow_rank_and_targets(random_sd: Folder, rank: int, targets: tuple[str, ...]) -> None:
    layers = linears(StableDiffusion(str(random_sd()), Frozen()).unet, targets)
    weights = StableDiffusion(str(random_sd()), LoRA(rank, targets=targets)).trainable
    assert len(weights) == 2 * len(layers)
    assert sum(w.numel() for w in weights.values()) == rank * sum(m.in_features + m.out_features for m in layers)
    assert all(".lora_" in name for name in weights)


def test_a_pattern_chooses_among_them(random_sd: Folder) -> None:
    everything, some, none = (
        StableDiffusion(str(random_sd()), LoRA(pattern=pattern)).trainable
        for pattern in (None, r"down.*attn2|^mid_block", "")
    )
    assert some.keys() == {
        name for name in everything if ("down_blocks" in name and "attn2" in name) or "mid_block" in name
    }
    assert 0 < len(some) < len(everything)
    assert none.keys() == everything.keys()


def test_default_is_rank_four_on_all_projections_of_attention(random_sd: Folder) -> None:
    weights = StableDiffusion(str(random_sd())).trainable
    # two blocks' worth of transformers (down, mid, up, up), each with self- and cross-attention of four projections
    attentions = [m for m in StableDiffusion(str(random_sd()), Frozen()).unet.modules() if hasattr(m, "to_out")]
    assert len(weights) == 2 * 4 * len(attentions)
    assert {min(w.shape) for w in weights.values()} == {4}


def test_nothing_changes_before_training_and_does_after(random_sd: Folder) -> None:
    base, model = StableDiffusion(str(random_sd()), Frozen()), StableDiffusion(str(random_sd()), LoRA())
    assert torch.equal(estimate(model), estimate(base))
    shift(model)
    assert (estimate(model) - estimate(base)).abs().max() > 0.01


def test_alpha_scales_the_addition(random_sd: Folder) -> None:
    r"""Doubling :math:`\alpha` is doubling :math:`B`."""
    once, twice = (StableDiffusion(str(random_sd()), LoRA(2, alpha=alpha)) for alpha in (3, 6))
    for model in (once, twice):
        shift(model)
    for name, weight in once.trainable.items():
        weight.data *= 2 if ".lora_B." in name else 1
    torch.testing.assert_close(estimate(once), estimate(twice))


def test_the_start_is_decided_by_the_seed_alone(random_sd: Folder) -> None:
    weights = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(disturbance)
        before = torch.get_rng_state()
        model = StableDiffusion(str(random_sd()), LoRA(seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(torch.cat([w.detach().flatten() for w in model.trainable.values()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", torch.float32), ("float16", torch.float32), ("float32", torch.float32), ("float64", torch.float64)],
)
def test_additions_are_at_least_float32(random_sd: Folder, dtype: str, expected: torch.dtype) -> None:
    model = StableDiffusion(str(random_sd()), LoRA(), dtype=dtype)
    assert {w.dtype for w in model.trainable.values()} == {expected}
    assert {w.dtype for w in model.parameters() if not w.requires_grad} == {getattr(torch, dtype)}


@pytest.mark.parametrize("trainable", [LoRA(), FullWeights("attn2")], ids=["lora", "full"])
def test_only_what_is_trained_gets_a_gradient(random_sd: Folder, trainable: object) -> None:
    model = StableDiffusion(str(random_sd()), trainable)
    shift(model)
    pixels = model.decode(model.denoise(X, 400, model.encode(PROMPTS)))
    pixels.square().sum().backward()
    assert len(model.trainable) > 0
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name
    assert all(weight.grad.abs().max() > 0 for weight in model.trainable.values())


@pytest.mark.parametrize("guide", [lambda model: model, Guidance], ids=["bare", "guided"])
def test_the_reference_is_the_base_model_and_leaves_no_trace(random_sd: Folder, guide: Callable[..., object]) -> None:
    model = StableDiffusion(str(random_sd()), LoRA())
    shift(model)
    trained, first = estimate(model), next(iter(model.trainable.values()))
    first.requires_grad_(False)
    names = list(model.trainable)
    with guide(model).reference():
        assert torch.equal(estimate(model), estimate(StableDiffusion(str(random_sd()), Frozen())))
    with pytest.raises(KeyError), guide(model).reference():
        raise KeyError
    assert torch.equal(estimate(model), trained)
    assert list(model.trainable) == names
    assert not first.requires_grad


def test_full_weights_are_those_of_the_pattern(random_sd: Folder) -> None:
    everything = StableDiffusion(str(random_sd()), FullWeights()).trainable
    some = StableDiffusion(str(random_sd()), FullWeights(r"attn2\.to_[kv]")).trainable
    assert everything.keys() == {
        f"unet.{name}" for name, _ in StableDiffusion(str(random_sd()), Frozen()).unet.named_parameters()
    }
    assert some.keys() == {name for name in everything if "attn2.to_k" in name or "attn2.to_v" in name}
    assert 0 < len(some) < len(everything)


def test_frozen_has_no_weight_to_train(random_sd: Folder) -> None:
    model = StableDiffusion(str(random_sd()), Frozen())
    assert model.trainable == {}
    before = estimate(model)
    with model.reference():
        assert torch.equal(estimate(model), before)


def test_mistakes_raise_one_sentence(random_sd: Folder) -> None:
    with pytest.raises(ValueError, match="rank of at least 1, and got rank=0"):
        LoRA(rank=0)
    with pytest.raises(ValueError, match="targets is empty; leave it out"):
        LoRA(targets=[])
    with pytest.raises(ValueError, match="target 'to_z' is the end of no linear layer's name"):
        StableDiffusion(str(random_sd()), LoRA(targets=("to_q", "to_z")))
    with pytest.raises(ValueError, match="LoRA's pattern 'nowhere' is found in no linear layer's name"):
        StableDiffusion(str(random_sd()), LoRA(pattern="nowhere"))
    with pytest.raises(ValueError, match="pattern 'nowhere' is found in no weight's name"):
        StableDiffusion(str(random_sd()), FullWeights("nowhere"))
    with pytest.raises(ValueError, match=r"lost in torch\.float16; load the model with dtype: float32"):
        StableDiffusion(str(random_sd()), FullWeights(), dtype="float16")
    with pytest.raises(ValueError, match="load the base model a second time"):
        StableDiffusion(str(random_sd()), FullWeights()).reference()
