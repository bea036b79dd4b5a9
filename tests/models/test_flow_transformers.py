"""Laws of every flow transformer, on random weights: it samples as its pipeline does, replays its recording, and exports reload."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from rlr import align
from rlr.chain import Chain
from rlr.data import Prompts
from rlr.estimators import DDPO, GRPO, RLR, AlignProp, FirstOrder, HalfOrderRLR, LookAhead
from rlr.models import Frozen, FullWeights, LoRA, OnDemand
from rlr.models.export import DiffusersLoRA, Exporter, Merged, PeftAdapter
from rlr.rewards import Brightness, FrameReward
from rlr.samplers import FlowSDE
from tests.models.flow_transformers import FAMILIES, PROMPTS, Family

Written = tuple[Family, Path]
STEPS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function that writes the folder of a family once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = FAMILIES[name].write(tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture(params=FAMILIES)
def written(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> Written:
    return FAMILIES[request.param], folders(request.param)


def ours(family: Family, model: Any, scale: float, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Returns the pixels of the deterministic sampler, and the noise that they are made of."""
    chain = Chain(family.guided(model, scale), FlowSDE(steps, noise_level=0.0))
    noises = chain.draw([1, 2])
    return model.decode(chain.sample(chain.encode(PROMPTS), noises).states[0]), noises[-1]


def shifted(model: Any, size: float = 0.2, seed: int = 1) -> Any:
    """Returns the model with other trained weights."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.trainable.values():
        weight.data += size * torch.randn(weight.shape, generator=generator)
    return model


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("size", [0, 1])
def test_samples_are_those_of_the_pipeline(written: Written, size: int, scale: float) -> None:
    family, folder = written
    model = family.build(folder, trainable=Frozen(), **family.sizes[size])
    samples, noise = ours(family, model, scale)
    expected = family.sample(folder, noise, scale, STEPS, family.sizes[size])
    torch.testing.assert_close(samples, expected, rtol=0, atol=1e-4)
    assert samples.shape[-2:] == family.sizes[size]["size"]
    assert (samples[0] - samples[1]).abs().max() > 0.05


@pytest.mark.parametrize("change", ["scale", "steps", "noise"])
def test_a_wrong_setting_is_seen(written: Written, change: str) -> None:
    """The tolerance above is small enough to reject another setting."""
    family, folder = written
    samples, noise = ours(family, family.build(folder, trainable=Frozen()), 4.0)
    noise = noise.flip(-1) if change == "noise" else noise
    scale, steps = 3.5 if change == "scale" else 4.0, STEPS + (change == "steps")
    assert (family.sample(folder, noise, scale, steps, family.sizes[0]) - samples).abs().max() > 1e-3


def test_a_prompt_gives_the_same_in_every_batch(written: Written) -> None:
    """Padding to the longer prompt changes no more than rounding."""
    family, folder = written
    model = family.build(folder, trainable=Frozen())
    x = torch.randn(2, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both = model.denoise(x, 0.9, model.encode(PROMPTS))
        alone = [model.denoise(x[i : i + 1], 0.9, model.encode([prompt])) for i, prompt in enumerate(PROMPTS)]
    torch.testing.assert_close(both, torch.cat(alone), rtol=0, atol=1e-5)


def test_a_replay_is_the_recording_to_the_bit(written: Written) -> None:
    family, folder = written
    chain = Chain(family.guided(shifted(family.build(folder, trainable=LoRA(2))), 4.0), FlowSDE(STEPS, 0.7))
    trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
    for t in range(STEPS, 0, -1):
        replayed = chain.replay(trajectory, t, t - 1).sample(trajectory.noises[t - 1])
        assert torch.equal(replayed.detach(), trajectory.states[t - 1])


def test_checkpointing_changes_nothing(written: Written) -> None:
    family, folder = written
    found = []
    for checkpointing in (False, True):
        model = shifted(family.build(folder, trainable=LoRA(2), checkpointing=checkpointing, vae_slicing=True))
        chain = Chain(family.guided(model, 4.0), FlowSDE(2, 0.7), checkpoint=checkpointing)
        trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
        x = chain.replay(trajectory, 2, 0).sample(trajectory.noises[0])
        model.decode(x).square().sum().backward()
        found.append({name: weight.grad for name, weight in model.trainable.items() if weight.grad is not None})
    plain, recomputed = found
    assert plain.keys() == recomputed.keys()
    assert sum(bool(gradient.abs().max() > 0) for gradient in plain.values()) > len(plain) / 2
    largest = max(gradient.abs().max().item() for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=0, atol=1e-5 * largest)


def test_the_lora_is_off_at_first_and_in_float32(written: Written) -> None:
    family, folder = written
    model, base = family.build(folder, dtype="bfloat16"), family.build(folder, dtype="bfloat16", trainable=Frozen())
    assert (model.adapter.rank, model.adapter.alpha) == (64, 128)
    assert all(weight.dtype == torch.float32 for weight in model.trainable.values())
    assert len(model.trainable) == 2 * family.layers
    assert next(model.vae.parameters()).dtype == torch.bfloat16
    x, condition = torch.ones(1, *model.latent_shape(model.size)), base.encode(PROMPTS[:1])
    with torch.no_grad():
        expected = base.denoise(x, 0.95, condition)
        assert expected.dtype == torch.float32
        assert torch.equal(model.denoise(x, 0.95, condition), expected)
        changed = shifted(model)
        assert (changed.denoise(x, 0.95, condition) - expected).abs().max() > 1e-3
        with model.reference():
            assert torch.equal(model.denoise(x, 0.95, condition), expected)


def test_encoders_on_demand_give_the_same_condition(written: Written, tmp_path: Path) -> None:
    family, folder = written
    expected = family.build(folder, trainable=Frozen()).encode(PROMPTS)
    for _ in range(2):
        model = family.build(folder, trainable=Frozen(), text=OnDemand(folder=str(tmp_path)))
        found = model.encode(PROMPTS)
        assert found.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(tensor, expected.tensors[name]) for name, tensor in found.tensors.items())
        assert not list(model.text.parameters())


def by_lora(family: Family, base: Path, folder: Path) -> Any:
    pipeline = family.pipeline.from_pretrained(base)
    pipeline.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
    if (folder / "transformer_2.safetensors").exists():
        pipeline.load_lora_weights(folder, weight_name="transformer_2.safetensors", load_into_transformer_2=True)
    return pipeline


def by_peft(family: Family, base: Path, folder: Path) -> Any:
    pipeline = family.pipeline.from_pretrained(base)
    PeftModel.from_pretrained(pipeline.transformer, str(folder))
    if (folder / "transformer_2").exists():
        PeftModel.from_pretrained(pipeline.transformer_2, str(folder / "transformer_2"))
    return pipeline


def by_folder(family: Family, base: Path, folder: Path) -> Any:
    return family.pipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    ("exporter", "load"),
    [(DiffusersLoRA(), by_lora), (PeftAdapter(), by_peft), (Merged(), by_folder)],
    ids=["lora", "peft", "merged"],
)
def test_an_export_makes_the_same_samples_in_diffusers(
    written: Written, tmp_path: Path, exporter: Exporter, load: Callable[[Family, Path, Path], Any]
) -> None:
    family, folder = written
    model = shifted(family.build(folder, trainable=LoRA(2, alpha=3.0)))
    exporter.write(model, tmp_path / "out")
    samples, noise = ours(family, model, 4.0)
    base = family.sample(folder, noise, 4.0, STEPS, family.sizes[0])
    assert (base - samples).abs().max() > 0.01
    found = family.run(load(family, folder, tmp_path / "out"), noise, 4.0, STEPS, family.sizes[0])
    torch.testing.assert_close(found, samples, rtol=0, atol=1e-4)


def test_a_lora_of_a_file_is_the_start(written: Written, tmp_path: Path) -> None:
    family, folder = written
    if family.layers > 30:
        pytest.skip("a file holds the LoRA of one transformer")
    model = shifted(family.build(folder, trainable=LoRA(2, alpha=3.0)))
    DiffusersLoRA().write(model, tmp_path / "out")
    again = family.build(folder, trainable=LoRA(start=str(tmp_path / "out" / "pytorch_lora_weights.safetensors")))
    x, condition = torch.ones(1, *model.latent_shape(model.size)), model.encode(PROMPTS[:1])
    with torch.no_grad():
        expected = model.denoise(x, 0.95, condition)
        torch.testing.assert_close(again.denoise(x, 0.95, condition), expected, rtol=0, atol=1e-6)


METHODS = {
    "rlr": lambda: RLR(length=1),
    "half_order": lambda: HalfOrderRLR(length=1, segments=1, control=LookAhead()),
    "alignprop": lambda: AlignProp(),
    "ddpo": lambda: DDPO(num_minibatches=1),
    "grpo": lambda: GRPO(num_minibatches=1),
    "draft": lambda: FirstOrder(steps=1),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_takes_a_step(written: Written, method: str) -> None:
    family, folder = written
    model = family.build(folder, trainable=LoRA(2), checkpointing=True)
    before = {name: weight.detach().clone() for name, weight in model.trainable.items()}
    reward = Brightness() if model.size.frames is None else FrameReward(Brightness())
    # GRPO compares samples of one prompt
    prompts = Prompts(train=list(PROMPTS), batch_size=4, samples_per_prompt=2)
    with warnings.catch_warnings(action="ignore"):
        align(model, reward, prompts, METHODS[method](), updates=1, accumulate=1, sampler=FlowSDE(4, 0.7))
    moved = [name for name, weight in model.trainable.items() if not torch.equal(weight, before[name])]
    assert len(moved) >= family.layers / 4
    assert all(weight.isfinite().all() for weight in model.trainable.values())


def test_full_weights_get_gradients(written: Written) -> None:
    family, folder = written
    model = family.build(folder, trainable=FullWeights())
    x = torch.randn(2, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    condition = model.encode(PROMPTS)
    sum(model.denoise(x, time, condition).square().sum() for time in (0.95, 0.3)).backward()
    reached = [weight for weight in model.trainable.values() if weight.grad is not None]
    assert len(reached) > 0.8 * len(model.trainable)
