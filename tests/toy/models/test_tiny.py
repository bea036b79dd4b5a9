from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from rlr.chain import Chain
from rlr.models import Frozen, Guidance, LoRA, StableDiffusion
from rlr.models.prediction import velocity
from rlr.samplers import DDIM
from rlr.toy import packaged
from rlr.toy.models import Tiny, tiny

PACKAGED = Path(tiny.__file__).parents[1] / "assets" / "tiny"


def test_another_folder_takes_the_place_of_the_built_in(random_sd: Callable[..., Path]) -> None:
    model = Tiny(str(random_sd()), trainable=LoRA(rank=2), size=40)
    assert isinstance(model, StableDiffusion)
    assert model.latent_shape(model.size) == (4, 10, 10)
    assert {min(weight.shape) for weight in model.trainable.values()} == {2}


def test_a_missing_built_in_model_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packaged.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="built-in model is missing from this installation"):
        Tiny()


def test_the_packaged_folder_is_the_default(
    monkeypatch: pytest.MonkeyPatch, random_sd: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "tiny").symlink_to(random_sd(prediction="v_prediction"))
    monkeypatch.setattr(packaged.resources, "files", lambda package: tmp_path)
    model = Tiny(trainable=Frozen())
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = StableDiffusion(str(random_sd(prediction="v_prediction")), Frozen())
    condition = expected.encode(["a red circle"])
    assert torch.equal(model.denoise(x, 500, condition), expected.denoise(x, 500, condition))


def test_the_built_in_model_paints_what_diffusers_makes_of_its_folder() -> None:
    model = Guidance(Tiny(trainable=Frozen()), 4.0)
    assert model.latent_shape(model.size) == (4, 8, 8)
    assert model.model.prediction is velocity
    assert model.model.text.length == 24
    chain = Chain(model, DDIM(10, eta=0.0))
    prompts = [f"a red circle on a {tone} background" for tone in ("black", "white")]
    noises = chain.draw([0, 0])
    pictures = model.decode(chain.sample(chain.encode(prompts), noises).states[0])
    pipeline = StableDiffusionPipeline.from_pretrained(PACKAGED, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 10, "guidance_scale": 4.0, "output_type": "pt"}
    expected = pipeline(prompts, latents=noises[-1], **settings).images
    torch.testing.assert_close(pictures, expected, rtol=0, atol=1e-4)
