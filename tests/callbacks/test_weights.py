"""The base model is there when it is asked for, and the trained one comes back to the bit."""

import pytest
import torch

from rlr.callbacks.weights import ReferenceWeights
from rlr.models import FullWeights, LoRA, StableDiffusion
from tests.modules.toy import AffineModel, align, weights


def move(module):
    with torch.no_grad():
        for weight in module.weights:
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))


def build(kind, random_sd):
    trainable = {"LoRA": LoRA, "FullWeights": lambda: FullWeights("attn2")}
    return align(model=AffineModel() if kind == "toy" else StableDiffusion(str(random_sd()), trainable[kind]()))


def answer(module):
    model = module.chain.model
    prompt = "one" if isinstance(model, AffineModel) else "a red circle"
    x = torch.randn(1, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.denoise(x, 100.0, model.encode([prompt]))


@pytest.mark.parametrize("kind", ["toy", "LoRA", "FullWeights"])
def test_answers_as_before_training_and_leaves_no_trace(kind, random_sd):
    module = build(kind, random_sd)
    before, reference = answer(module), ReferenceWeights(module)
    move(module)
    after, own = answer(module), weights(module)
    with reference.restored():
        assert torch.equal(answer(module), before)
    assert torch.equal(answer(module), after)
    assert torch.equal(weights(module), own)
    assert not torch.allclose(before, after)
    assert all(weight.requires_grad for weight in module.weights)


@pytest.mark.parametrize("kind", ["toy", "LoRA"])
def test_the_trained_model_comes_back_after_an_exception(kind, random_sd):
    module = build(kind, random_sd)
    reference = ReferenceWeights(module)
    move(module)
    after = answer(module)

    def fail():
        with reference.restored():
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        fail()
    assert torch.equal(answer(module), after)


def test_a_lora_needs_no_copy_and_other_weights_are_not_copied_too_late(random_sd):
    lora, late = build("LoRA", random_sd), align()
    assert ReferenceWeights(lora)._copy == {}
    assert ReferenceWeights(lora).known
    late.progress.batches = 1
    assert not ReferenceWeights(late).known
