"""Laws of every family of latent diffusion, on small random weights: it agrees with diffusers' own pipeline, replays exactly,
trains in little memory, and its LoRA is read by that pipeline."""

import re
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlr.chain import Chain
from rlr.data import Prompts
from rlr.estimators import DDPO, GRPO, RLR, AlignProp, HalfOrderRLR, LookAhead
from rlr.estimators.base import Estimator
from rlr.models import FullWeights, Guidance, LoRA, OnCPU, OnDemand
from rlr.models.export import ComfyUI, DiffusersLoRA, Exporter, Kohya, Merged, PeftAdapter, SingleFile
from rlr.modules import ImageAlignment
from rlr.rewards import Brightness
from tests.models.image_pipelines import FAMILIES, PROMPTS, Family, ours
from tests.modules.toy import run

Folder = Callable[[str], Path]
every = pytest.mark.parametrize("name", FAMILIES)
one_a_class = pytest.mark.parametrize("name", ["sdxl", "flux", "klein"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Returns a function that writes the random model of a family once."""

    @cache
    def write(name: str) -> Path:
        return FAMILIES[name].write(tmp_path_factory.mktemp(name), **FAMILIES[name].settings)

    return write


@pytest.fixture(scope="module")
def opened(folder: Folder) -> Callable[[str], Any]:
    """Returns a function that opens the pipeline of a family once; tests leave it as it is."""
    return cache(lambda name: FAMILIES[name].open(folder(name)))


def shift(model: Any, size: float = 0.2, seed: int = 1) -> Any:
    """Returns a model with other trained weights than at first."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.trainable.values():
        weight.data += size * torch.randn(weight.shape, generator=generator)
    return model


@pytest.mark.parametrize(("size", "steps"), [((32, 32), 3), ((48, 24), 2)])
@pytest.mark.parametrize(
    ("name", "scale", "read"), [(n, *case) for n, family in FAMILIES.items() for case in family.cases]
)
def test_images_are_those_of_the_pipeline(
    folder: Folder,
    opened: Callable[[str], Any],
    name: str,
    scale: float,
    read: float,
    size: tuple[int, int],
    steps: int,
) -> None:
    family = FAMILIES[name]
    model = family.build(folder(name), read, size=size)
    images, noise = ours(family, model, scale, steps)
    assert images.shape == (2, 3, *size)
    theirs = family.by_pipeline(opened(name), model, noise, scale, read, steps)
    torch.testing.assert_close(images, theirs, rtol=0, atol=1e-4)
    assert (images[0] - images[1]).abs().max() > 0.05


@every
@pytest.mark.parametrize("change", ["scale", "steps", "noise", "size"])
def test_a_wrong_setting_is_seen(folder: Folder, opened: Callable[[str], Any], name: str, change: str) -> None:
    """The tolerance above is small enough to reject another setting."""
    family = FAMILIES[name]
    scale, read = family.cases[-1]
    model = family.build(folder(name), read)
    images, noise = ours(family, model, scale, 3)
    noise = noise.flip(-1) if change == "noise" else noise
    if change == "size":
        # a square of the noise of a larger image has other positions or other numbers of the size
        model = family.build(folder(name), read, size=40)
        large = torch.randn(2, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
        large[..., : noise.shape[-2], : noise.shape[-1]] = noise
        noise = large
    factor = 1.1 if change == "scale" else 1.0
    other = family.by_pipeline(opened(name), model, noise, factor * scale, factor * read, 4 if change == "steps" else 3)
    assert (images - other[..., :32, :32]).abs().max() > 1e-3


@every
def test_a_replay_is_the_recording_to_the_bit(folder: Folder, name: str) -> None:
    family = FAMILIES[name]
    model = shift(family.build(folder(name), trainable=LoRA(2)))
    chain = Chain(Guidance(model, 3.0), family.noisy(3))
    trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
    for t in (3, 2, 1):
        step = chain.replay(trajectory, t, t - 1)
        assert torch.equal(step.sample(trajectory.noises[t - 1]), trajectory.states[t - 1])
    assert torch.equal(chain.sample(chain.encode(PROMPTS), chain.draw([1, 2])).states, trajectory.states)


@every
def test_a_prompt_gives_the_same_estimate_in_every_batch(folder: Folder, name: str) -> None:
    model = FAMILIES[name].build(folder(name))
    x = torch.randn(2, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    time = model.schedule(model.size).grid(4).times[3]
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        together = model.denoise(x, time, model.encode(PROMPTS))
        alone = [model.denoise(x[i : i + 1], time, model.encode([PROMPTS[i]]))[0] for i in range(2)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-4)


def gradients(model: Any, time: float) -> list[Tensor]:
    """Returns the gradients of the trained weights after a step and its decoding."""
    x = torch.randn(2, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    pixels = model.decode(model.denoise(x, time, model.encode(["a", "red"])))
    pixels.square().sum().backward()
    return [pixels.detach(), *(weight.grad for weight in model.trainable.values())]


@one_a_class
@pytest.mark.parametrize("option", ["checkpointing", "vae_slicing"])
def test_what_saves_memory_changes_nothing(folder: Folder, name: str, option: str) -> None:
    family = FAMILIES[name]
    plain, saving = (shift(family.build(folder(name), trainable=LoRA(2), **{option: on})) for on in (False, True))
    time = plain.schedule(plain.size).grid(4).times[3]
    calls: list[list[int]] = [[], []]
    for model, called in zip((plain, saving), calls, strict=True):
        inner = model.network.mid_block.attentions[0] if name == "sdxl" else model.network
        counted = inner.transformer_blocks[0] if option == "checkpointing" else model.vae.decoder
        counted.register_forward_pre_hook(lambda *args, called=called: called.append(1))
    for one, other in zip(gradients(plain, time), gradients(saving, time), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert len(calls[1]) > len(calls[0]) > 0


@every
def test_tiles_are_those_of_the_pipeline(folder: Folder, name: str) -> None:
    family = FAMILIES[name]
    model = family.build(folder(name), size=64, vae_tiling=True)
    pipeline = family.open(folder(name))
    scale, read = family.cases[0]
    images, noise = ours(family, model, scale, 2)
    read = getattr(model, "guidance", 0.0)
    whole = family.by_pipeline(pipeline, model, noise, scale, read, 2)
    pipeline.vae.enable_tiling()
    tiled = family.by_pipeline(pipeline, model, noise, scale, read, 2)
    torch.testing.assert_close(images, tiled, rtol=0, atol=1e-4)
    assert (whole - tiled).abs().max() > 1e-3
    z = noise.clone().requires_grad_()
    model.decode(z).sum().backward()
    assert z.grad.abs().amin((0, 1)).max() > 0


@every
def test_a_lora_has_the_layers_of_the_family_and_is_off_at_first(folder: Folder, name: str) -> None:
    family = FAMILIES[name]
    model, base = family.build(folder(name), trainable=LoRA(2)), family.build(folder(name))
    assert len({weight.split(".lora_")[0] for weight in model.trainable}) == family.layers
    x, condition = torch.ones(1, *model.latent_shape(model.size)), base.encode(["a"])
    time = base.schedule(base.size).grid(4).times[2]
    with torch.no_grad():
        expected = base.denoise(x, time, condition)
        assert torch.equal(model.denoise(x, time, condition), expected)
        shift(model)
        assert (model.denoise(x, time, condition) - expected).abs().max() > 1e-3
        with model.reference():
            assert torch.equal(model.denoise(x, time, condition), expected)


@one_a_class
def test_a_half_network_has_float32_trained_weights(folder: Folder, name: str) -> None:
    family = FAMILIES[name]
    model = shift(family.build(folder(name), trainable=LoRA(2), dtype="bfloat16"))
    assert {weight.dtype for weight in model.trainable.values()} == {torch.float32}
    assert {weight.dtype for weight in model.parameters() if not weight.requires_grad} == {torch.bfloat16}
    chain = Chain(model, family.noisy(3))
    trajectory = chain.sample(chain.encode(["a", "red"]), chain.draw([1, 2]))
    assert trajectory.states.dtype == model.decode(trajectory.states[0]).dtype == torch.float32
    chain.replay(trajectory, 3, 2).log_prob(trajectory.states[2]).sum().backward()
    assert any(weight.grad.abs().max() > 0 for weight in model.trainable.values())


@one_a_class
def test_all_weights_are_trained(folder: Folder, name: str) -> None:
    model = FAMILIES[name].build(folder(name), trainable=FullWeights())
    assert sum(w.numel() for w in model.trainable.values()) == sum(w.numel() for w in model.network.parameters())
    gradients(model, model.schedule(model.size).grid(4).times[2])
    reached = [weight.grad is not None and weight.grad.abs().max() > 0 for weight in model.trainable.values()]
    assert sum(reached) > 0.9 * len(reached)


@every
def test_encoders_anywhere_give_the_same_condition(folder: Folder, name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    expected = family.build(folder(name)).encode(["a red circle", ""]).tensors
    placements = [OnCPU(), OnDemand(folder=str(tmp_path)), OnDemand(folder=str(tmp_path))]
    for placement in placements:
        model = family.build(folder(name), text=placement)
        found = model.encode(["a red circle", ""]).tensors
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
        assert not any(key.startswith("text.") for key, _ in model.named_parameters())
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def lora_pipeline(family: Family, base: Path, folder: Path) -> Any:
    pipeline = family.open(base)
    pipeline.load_lora_weights(folder, weight_name=next(folder.glob("*.safetensors")).name)
    return pipeline


def peft_pipeline(family: Family, base: Path, folder: Path) -> Any:
    pipeline = family.open(base)
    network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    PeftModel.from_pretrained(network, str(folder))
    return pipeline


@every
@pytest.mark.parametrize(
    ("exporter", "load"),
    [
        (DiffusersLoRA(), lora_pipeline),
        (ComfyUI(), lora_pipeline),
        (PeftAdapter(), peft_pipeline),
        (Merged(), lambda family, base, folder: family.open(folder)),
    ],
    ids=["lora", "comfyui", "peft", "merged"],
)
def test_an_export_makes_the_same_images_in_diffusers(
    folder: Folder, name: str, tmp_path: Path, exporter: Exporter, load: Callable[..., Any]
) -> None:
    family = FAMILIES[name]
    scale, read = family.cases[-1]
    model = shift(family.build(folder(name), read, trainable=LoRA(2, alpha=3.0)), 0.1)
    exporter.write(model, tmp_path / "out")
    images, noise = ours(family, model, scale, 2)
    base = family.by_pipeline(family.open(folder(name)), model, noise, scale, read, 2)
    assert (base - images).abs().max() > 0.01
    again = family.by_pipeline(load(family, folder(name), tmp_path / "out"), model, noise, scale, read, 2)
    torch.testing.assert_close(again, images, rtol=0, atol=1e-4)


@one_a_class
def test_a_lora_is_the_start_of_another(folder: Folder, name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    first = shift(family.build(folder(name), trainable=LoRA(2, alpha=3.0)))
    (file,) = DiffusersLoRA().write(first, tmp_path / "out")
    again = family.build(folder(name), trainable=LoRA(start=str(file)))
    torch.testing.assert_close(ours(family, again, 1.0, 2)[0], ours(family, first, 1.0, 2)[0], rtol=0, atol=1e-5)


@one_a_class
@pytest.mark.parametrize("exporter", [Kohya(), SingleFile()])
def test_formats_of_stable_diffusion_alone_are_refused(
    folder: Folder, name: str, exporter: Exporter, tmp_path: Path
) -> None:
    model = shift(FAMILIES[name].build(folder(name), trainable=LoRA(2)))
    with pytest.raises(ValueError, match=r"writes a Stable Diffusion 1\.x or 2\.x, and the model is a "):
        exporter.write(model, tmp_path / "out")


@every
def test_a_pipeline_in_memory_is_the_model_of_its_folder(folder: Folder, name: str) -> None:
    family = FAMILIES[name]
    model = family.model.from_pipeline(family.open(folder(name)), LoRA(2), size=32)
    x = torch.randn(1, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    condition = model.encode(["a red circle"])
    time = model.schedule(model.size).grid(4).times[3]
    same = family.model(str(folder(name)), LoRA(2), size=32)
    with torch.no_grad():
        torch.testing.assert_close(model.denoise(x, time, condition), same.denoise(x, time, condition))
        assert torch.equal(model.decode(x), same.decode(x))
    assert model.schedule(model.size).grid(4) == same.schedule(same.size).grid(4)


@every
def test_a_part_that_lacks_weights_is_refused(folder: Folder, name: str, tmp_path: Path) -> None:
    copied = shutil.copytree(folder(name), tmp_path / "copy")
    for part in sorted(path.name for path in copied.iterdir() if list(path.glob("*.safetensors"))):
        (file,) = (copied / part).glob("*.safetensors")
        whole = file.read_bytes()
        state = load_file(file)
        lost = max(key for key in state if key.endswith("weight") and not re.search("embed_tokens|shared", key))
        save_file({key: weight for key, weight in state.items() if key != lost}, file, {"format": "pt"})
        with pytest.raises(ValueError, match=r"lacks weights of the .* .1 in all.; "):
            FAMILIES[name].build(copied)
        file.write_bytes(whole)


@one_a_class
def test_folders_of_other_families_are_refused(folder: Folder, name: str) -> None:
    for other in FAMILIES:
        if FAMILIES[other].model is not FAMILIES[name].model:
            with pytest.raises(
                ValueError, match=f"of a {FAMILIES[other].pipeline.__name__} has no readable|there; name"
            ):
                FAMILIES[name].build(folder(other))


@one_a_class
def test_sizes_fit_the_latents(folder: Folder, name: str) -> None:
    with pytest.raises(ValueError, match="positive multiples of 4 pixels, and 30 x 30 are not"):
        FAMILIES[name].build(folder(name), size=30)


@one_a_class
@pytest.mark.parametrize(
    "estimator",
    [
        RLR(length=1),
        HalfOrderRLR(length=1, segments=None, steps=1, control=LookAhead()),
        AlignProp(),
        DDPO(num_minibatches=1),
        GRPO(num_minibatches=1),
    ],
    ids=["rlr", "look_ahead", "alignprop", "ddpo", "grpo"],
)
def test_an_estimator_takes_a_step(folder: Folder, name: str, estimator: Estimator) -> None:
    family = FAMILIES[name]
    model = family.build(folder(name), trainable=LoRA(2), checkpointing=True)
    before = {key: weight.detach().clone() for key, weight in model.trainable.items()}
    module = ImageAlignment(Guidance(model, family.cases[-1][0]), family.noisy(3), Brightness(), estimator)
    trainer = run(module, Prompts(["a red circle", "two blue squares"], batch_size=4, samples_per_prompt=2), 1)
    assert trainer.global_step == 1
    assert trainer.callback_metrics["gradient/total"] > 0
    moved = [key for key, weight in model.trainable.items() if not torch.equal(weight, before[key])]
    assert any("lora_B" in key for key in moved)
