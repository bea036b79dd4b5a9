"""Laws of every family of latent diffusion, on small random weights: it reads the files of its pipeline, and samples as it does."""

import inspect
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlr.chain import Chain
from rlr.models import LoRA, OnCPU, OnDemand
from rlr.models.base import Size
from rlr.models.latent import VideoLatentDiffusion
from tests.models.families import FAMILIES, FIRST, PROMPTS, Member, changed, covering

Find = Callable[[str], Member]
every = pytest.mark.parametrize("name", FAMILIES)
one_a_class = pytest.mark.parametrize("name", FIRST)
CASES = [
    # both sizes with the last pair of scales, the first size with each; the rest is slow
    pytest.param(name, *case, size, marks=() if size == 0 or case == family.cases[-1] else pytest.mark.slow)
    for name, family in FAMILIES.items()
    for case in family.cases
    for size in (0, 1)
]


@pytest.mark.parametrize(("name", "scale", "read", "size"), CASES)
def test_samples_are_those_of_the_pipeline(member: Find, name: str, scale: float, read: float, size: int) -> None:
    found = member(name)
    sides, steps = found.family.sizes[size], found.family.steps[size]
    samples, noise = found.ours(scale, read, steps, size)
    frames = (sides["frames"],) if "frames" in sides else ()
    assert samples.shape == (2, *frames, 3, *sides["size"])
    torch.testing.assert_close(samples, found.theirs(noise, scale, read, steps, sides), rtol=0, atol=1e-4)
    assert (samples[0] - samples[1]).abs().max() > 0.05


def test_a_flux_that_reads_no_guidance_samples_as_the_pipeline(random_flux: Callable[..., Path]) -> None:
    """FLUX.1-schnell has no input for a guidance scale, and a grid without a shift."""
    folder = random_flux(guidance=False, shift=1.0, use_dynamic_shifting=False)
    found = Member(replace(FAMILIES["flux"], settings={"guidance": False}), folder)
    assert not found.base.transformer.config.guidance_embeds
    size = found.family.sizes[0]
    samples, noise = found.ours(1.0, 3.5, 4)
    torch.testing.assert_close(samples, found.theirs(noise, 1.0, 0.0, 4, size), rtol=0, atol=1e-4)
    # whatever scale is set, it is not read; another number of steps is seen
    assert torch.equal(found.ours(1.0, 7.0, 4)[0], samples)
    assert (found.theirs(noise, 1.0, 0.0, 3, size) - samples).abs().max() > 1e-3


@every
def test_a_wrong_setting_is_seen(member: Find, name: str) -> None:
    """The tolerance above is small enough to reject another setting."""
    found = member(name)
    (scale, read), size = found.family.cases[-1], found.family.sizes[0]
    samples, noise = found.ours(scale, read, 2)
    others = {
        "scale": found.theirs(noise, 1.1 * scale, 1.1 * read, 2, size),
        "steps": found.theirs(noise, scale, read, 3, size),
        "noise": found.theirs(noise.flip(-1), scale, read, 2, size),
    }
    assert [change for change, other in others.items() if (other - samples).abs().max() < 1e-3] == []


@one_a_class
def test_a_wrong_size_is_seen(member: Find, name: str) -> None:
    """A part of the noise of a larger sample has other positions, or other numbers of the size."""
    found = member(name)
    (scale, read), size = found.family.cases[-1], found.family.sizes[0]
    samples, noise = found.ours(scale, read, 2)
    height, width = size["size"]
    larger = {**size, "size": (height + 32, width + 32)}
    with changed(found.base, larger):
        shape = found.base.latent_shape(found.base.size)
    large = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    large[..., : noise.shape[-2], : noise.shape[-1]] = noise
    assert (found.theirs(large, scale, read, 2, larger)[..., :height, :width] - samples).abs().max() > 1e-3


@every
def test_a_replay_is_the_recording_to_the_bit(member: Find, name: str) -> None:
    found = member(name)
    with found.lora() as model, warnings.catch_warnings(action="ignore"):
        chain = Chain(found.family.guided(model, 3.0), found.family.noisy(3))
        trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
        for t in (3, 2, 1):
            step = chain.replay(trajectory, t, t - 1)
            assert torch.equal(step.sample(trajectory.noises[t - 1]), trajectory.states[t - 1])
        assert torch.equal(chain.sample(chain.encode(PROMPTS), chain.draw([1, 2])).states, trajectory.states)


@every
def test_a_prompt_gives_the_same_estimate_in_every_batch(member: Find, name: str) -> None:
    """Padding to the longer prompt changes no more than rounding."""
    model = member(name).base
    x = torch.randn(2, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    time = model.schedule(model.size).grid(4).times[3]
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        together = model.denoise(x, time, model.encode(PROMPTS))
        alone = [model.denoise(x[i : i + 1], time, model.encode([PROMPTS[i]]))[0] for i in range(2)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*FIRST, "wan_patches"])
def test_tiles_are_those_of_the_pipeline(member: Find, name: str) -> None:
    found = member(name)
    size = {**found.family.sizes[-1], "size": (64, 64)}
    model, pipeline = found.build(vae_tiling=True, **size), found.copied("vae")
    for vae in (model.vae, pipeline.vae):
        assert vae is not model.vae or vae.use_tiling
        vae.enable_tiling(**found.family.tiles)
    scale, read = found.family.cases[0]
    samples, noise = found.sample(model, scale, read, 2, size)
    theirs = found.theirs(noise, scale, read, 2, size, pipeline)
    torch.testing.assert_close(samples, theirs, rtol=0, atol=1e-4)
    z = noise[:1].clone().requires_grad_()
    tiled = model.decode(z)
    assert torch.autograd.grad(tiled.sum(), z)[0].abs().amax((0, 1)).max() > 0
    model.vae.disable_tiling()
    with torch.no_grad():
        assert (model.decode(z) - tiled).abs().max() > 1e-3


@one_a_class
def test_encoders_anywhere_give_the_same_condition(member: Find, name: str, tmp_path: Path) -> None:
    found, texts = member(name), ["a red circle", ""]
    expected = found.base.encode(texts).tensors
    for placement in (OnCPU(), OnDemand(folder=str(tmp_path)), OnDemand(folder=str(tmp_path))):
        model = found.build(text=placement)
        condition = model.encode(texts).tensors
        assert condition.keys() == expected.keys()
        assert all(torch.equal(condition[key], tensor) for key, tensor in expected.items())
        assert not list(model.text.parameters())
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


@pytest.mark.parametrize("model", VideoLatentDiffusion.__subclasses__(), ids=lambda model: model.__name__)
def test_a_pipeline_has_the_default_size_of_its_class(model: type[VideoLatentDiffusion]) -> None:
    defaults = {name: one.default for name, one in inspect.signature(model.__init__).parameters.items()}
    assert Size(*defaults["size"], defaults["frames"], defaults["fps"]) == model.standard


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if hasattr(family.model, "from_pipeline")])
def test_a_pipeline_in_memory_is_the_model_of_its_folder(member: Find, name: str) -> None:
    found = member(name)
    model = found.family.model.from_pipeline(found.copied(*found.base.networks()), LoRA(2), **found.family.sizes[0])
    same = found.base
    assert model.size == same.size
    x = torch.randn(1, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    condition = model.encode(["a red circle"])
    time = model.schedule(model.size).grid(4).times[3]
    with torch.no_grad():
        torch.testing.assert_close(model.denoise(x, time, condition), same.denoise(x, time, condition))
        assert torch.equal(model.decode(x), same.decode(x))
    assert model.schedule(model.size).grid(4) == same.schedule(same.size).grid(4)


@one_a_class
def test_a_part_that_lacks_weights_is_refused(member: Find, name: str, tmp_path: Path) -> None:
    found = member(name)
    copied = Member(found.family, shutil.copytree(found.folder, tmp_path / "copy"))
    for part in sorted(path.name for path in copied.folder.iterdir() if list(path.glob("*.safetensors"))):
        (file,) = (copied.folder / part).glob("*.safetensors")
        whole = file.read_bytes()
        state = load_file(file)
        lost = max(key for key in state if key.endswith("weight") and not re.search("embed_tokens|shared", key))
        save_file({key: weight for key, weight in state.items() if key != lost}, file, {"format": "pt"})
        with pytest.raises(ValueError, match=r"lacks weights of the .* .1 in all.; "):
            copied.build(text=None)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "other"), [pair for pair in covering(FIRST, FIRST[1:] + FIRST[:1]) if len(set(pair.values)) == 2]
)
def test_folders_of_other_families_are_refused(member: Find, name: str, other: str) -> None:
    with pytest.raises(
        ValueError, match=f"of a {FAMILIES[other].pipeline.__name__} has no|there; name|states no shift"
    ):
        FAMILIES[name].model(str(member(other).folder))


@one_a_class
def test_sizes_fit_the_latents(member: Find, name: str) -> None:
    found = member(name)
    with pytest.raises(ValueError, match=r"positive multiples of \d+ pixels, and 31 x 31 are not"):
        found.build(**{**found.family.sizes[0], "size": (31, 31)})
