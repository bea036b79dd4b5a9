"""Images agree with diffusers' own pipeline on the same noise."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler, StableDiffusionPipeline
from diffusers.schedulers import scheduling_ddim
from torch import Tensor

from rlr.chain import Chain
from rlr.models import Frozen, Guidance, StableDiffusion
from rlr.samplers import DDIM

PROMPTS = ["a red circle on the background", "two blue squares"]
NEGATIVE = "the green"
STEPS = 8


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """Returns a function that runs diffusers' pipeline of a folder on given noises."""

    def run(folder: Path, noises: Tensor, eta: float, scale: float, **options: object) -> Tensor:
        pipeline = StableDiffusionPipeline.from_pretrained(folder, **options)
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
        pipeline.set_progress_bar_config(disable=True)
        rest: Iterator[Tensor] = iter(noises[:-1].flip(0))
        monkeypatch.setattr(scheduling_ddim, "randn_tensor", lambda *args, **kwargs: next(rest))
        settings = {"num_inference_steps": STEPS, "eta": eta, "guidance_scale": scale, "output_type": "pt"}
        return pipeline(PROMPTS, latents=noises[-1], negative_prompt=[NEGATIVE] * 2, **settings).images

    return run


def ours(folder: Path, eta: float, scale: float, seeds: tuple[int, int] = (3, 4)) -> tuple[Tensor, Tensor]:
    model = Guidance(StableDiffusion(str(folder), Frozen()), scale, NEGATIVE)
    chain = Chain(model, DDIM(STEPS, eta))
    noises = chain.draw(seeds)
    return noises, model.decode(chain.sample(chain.encode(PROMPTS), noises).states[0])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(("eta", "scale"), [(0.0, 7.5), (1.0, 1.0)])
def test_pictures_agree(
    random_sd: Callable[..., Path],
    reference: Callable[..., Tensor],
    prediction: str,
    spacing: str,
    eta: float,
    scale: float,
) -> None:
    folder = random_sd(prediction=prediction, spacing=spacing)
    noises, pictures = ours(folder, eta, scale)
    torch.testing.assert_close(pictures, reference(folder, noises, eta, scale), rtol=0, atol=1e-4)


@pytest.mark.parametrize("change", ["eta", "scale", "spacing", "prediction", "noise"])
def test_a_wrong_setting_is_seen(random_sd: Callable[..., Path], reference: Callable[..., Tensor], change: str) -> None:
    """The tolerance above is small enough to reject another setting."""
    noises, pictures = ours(random_sd(), 1.0, 7.5)
    folder = random_sd(
        prediction="v_prediction" if change == "prediction" else "epsilon",
        spacing="trailing" if change == "spacing" else "leading",
    )
    if change == "noise":
        noises = torch.cat([noises[:-1].flip(0), noises[-1:]])
    other = reference(folder, noises, 0.9 if change == "eta" else 1.0, 7.4 if change == "scale" else 7.5)
    assert (pictures - other).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"scheduler": PNDMScheduler},
        {"set_alpha_to_one": True},
        {"beta_schedule": "linear", "beta_end": 0.02},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": tuple(0.0005 + 0.00001 * i for i in range(1000))},
        {"prediction": "v_prediction", "spacing": "trailing", "rescale_betas_zero_snr": True},
        {"spacing": "linspace", "num_train_timesteps": 8},
    ],
    ids=["pndm", "alpha-to-one", "linear", "cosine", "trained", "zero-snr", "linspace"],
)
def test_schedules_are_read_from_the_folder(
    random_sd: Callable[..., Path], reference: Callable[..., Tensor], options: dict[str, object]
) -> None:
    folder = random_sd(**options)
    noises, pictures = ours(folder, 1.0, 3.0)
    torch.testing.assert_close(pictures, reference(folder, noises, 1.0, 3.0), rtol=0, atol=1e-4)
