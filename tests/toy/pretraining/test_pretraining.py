import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers import AutoProcessor, CLIPModel, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from rlr.toy.data.scenes import EncodedScenes, Scenes
from rlr.toy.data.videos import EncodedVideos
from rlr.toy.models import TinyFlow
from rlr.toy.pretraining.autoencoder import Autoencoder
from rlr.toy.pretraining.denoiser import Denoiser
from rlr.toy.pretraining.export import main as export
from rlr.toy.pretraining.flow import FlowDenoiser
from rlr.toy.pretraining.hpsv2 import HPSv2
from rlr.toy.pretraining.reward import Reward, build_clip, renormalised
from rlr.toy.pretraining.video import VideoDenoiser
from rlr.toy.world.tokenizer import build_tokenizer
from tests.toy.pretraining.small_video import shrink


@pytest.fixture(scope="module")
def shrunk():
    """Makes the trainings on videos small."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield


@pytest.fixture(params=["autoencoder", "denoiser", "flow", "reward", "hpsv2", "video"], scope="module")
def recipe(request, vae, random_sd, shrunk):
    """How to build the module and the data of one of the trainings, small."""
    small = {"size": 40, "batch_size": 4, "held_out": 4}
    return {
        "autoencoder": (lambda: Autoencoder(channels=(8, 8, 8)), lambda: Scenes(**small)),
        "denoiser": (
            lambda: Denoiser(vae, channels=(16, 16), width=16),
            lambda: EncodedScenes(vae, **small),
        ),
        "flow": (
            lambda: FlowDenoiser(str(random_sd(prediction="v_prediction"))),
            lambda: EncodedScenes(vae, **small),
        ),
        "reward": (lambda: Reward(vae, width=16, layers=1, text_layers=1), lambda: Scenes(**small)),
        "hpsv2": (lambda: HPSv2(vae, width=16, layers=1, text_layers=1), lambda: Scenes(**small)),
        "video": (lambda: VideoDenoiser(vae), lambda: EncodedVideos(vae, **{**small, "size": 8})),
    }[request.param]


def trainer(folder, **options):
    saving = ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    return Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=6,
        logger=False,
        callbacks=[saving],
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **options,
    )


def fit(recipe, folder, **options):
    seed_everything(0)
    module, data = recipe[0](), recipe[1]()
    trainer(folder).fit(module, data, weights_only=True, **options)
    return module.state_dict()


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """The folder of an uninterrupted run, and what it ends with."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, fit(recipe, folder)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(recipe, whole, tmp_path):
    folder, after = whole
    resumed = fit(recipe, tmp_path, ckpt_path=folder / "step=3.ckpt")
    for name, value in after.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def test_training_moves_the_weights_and_the_average_follows(recipe, whole):
    seed_everything(0)
    before, (_, after) = recipe[0]().state_dict(), whole
    for part in ("networks.", "average."):
        assert any(not torch.equal(after[name], before[name]) for name in before if name.startswith(part))


@pytest.mark.parametrize("recipe", ["autoencoder", "denoiser", "flow", "reward", "hpsv2"], indirect=True)
def test_validation_runs(recipe):
    module, data = recipe[0](), recipe[1]()
    silent = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    results = Trainer(accelerator="cpu", **silent).validate(module, data, verbose=False)
    assert any(name.startswith("val/") for name in results[0])


@pytest.mark.parametrize("recipe", ["denoiser", "flow"], indirect=True)
def test_denoisers_refuse_pictures(recipe, tmp_path):
    with pytest.raises(ValueError, match="EncodedScenes"):
        trainer(tmp_path).fit(recipe[0](), Scenes(8, 4, held_out=4))


@pytest.mark.parametrize("recipe", ["flow"], indirect=True)
def test_the_flow_exports_the_weights_that_it_trains(recipe, random_sd, tmp_path):
    module = recipe[0]()
    trainer(tmp_path).fit(module, recipe[1]())
    export(["flow", "--from", str(tmp_path / "step=6.ckpt"), "--to", str(tmp_path / "out")])
    folder = str(random_sd(prediction="v_prediction"))
    model = TinyFlow(folder, changes=str(tmp_path / "out" / "unet_changes.safetensors"))
    base, own = TinyFlow(folder).fresh_network().state_dict(), model.fresh_network().state_dict()
    changed = {name for name, weight in own.items() if not torch.equal(weight, base[name])}
    average = module.averaged()
    assert changed <= set(average)
    assert {"conv_out.weight", "time_embedding.linear_1.weight"} <= changed
    assert not any("resnets.0.conv1" in name for name in average)
    for name, weight in average.items():
        torch.testing.assert_close(own[name], weight.half().float(), rtol=0, atol=0)


def test_training_without_an_end_is_refused(tmp_path):
    endless = Trainer(accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="max_steps"):
        endless.fit(Autoencoder(channels=(8, 8, 8)), Scenes(8, 4, held_out=4))


def test_the_weights_of_min_snr_are_bounded_by_gamma(vae):
    module = Denoiser(vae, channels=(16, 16), width=16, gamma=5.0)
    alpha = module.diffusion.alphas_cumprod
    snr = alpha / (1 - alpha)
    weight = module.weight(torch.arange(1000))
    # the loss on z, and with it the weight times (SNR + 1) / SNR on epsilon, never counts more than gamma
    assert (weight * (snr + 1)).max() == pytest.approx(5.0, rel=1e-4)
    torch.testing.assert_close(weight[snr < 5], (snr / (snr + 1))[snr < 5])


def test_export_writes_folders_that_open(vae, tmp_path):
    checkpoint = {}
    parts = {
        "vae": (Autoencoder(channels=(8, 8, 8)), Scenes(8, 4, held_out=4)),
        "denoiser": (Denoiser(vae, channels=(16, 16), width=16), EncodedScenes(vae, 8, 4, held_out=4)),
        "reward": (Reward(vae, width=16, layers=1, text_layers=1), Scenes(8, 4, held_out=4)),
    }
    for name, (module, data) in parts.items():
        trainer(tmp_path / name).fit(module, data)
        checkpoint[name] = str(tmp_path / name / "step=6.ckpt")
        export([name, "--from", checkpoint[name], "--to", str(tmp_path / "out" / name)])
    AutoencoderKL.from_pretrained(tmp_path / "out" / "vae")
    pipeline = StableDiffusionPipeline.from_pretrained(
        tmp_path / "out" / "denoiser", safety_checker=None, torch_dtype=torch.float32
    )
    pictures = pipeline("a red cross", num_inference_steps=2, output_type="pt").images
    assert pictures.shape == (1, 3, 32, 32)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.vae.config.scaling_factor == pytest.approx(float(parts["denoiser"][0].scale))
    clip = CLIPModel.from_pretrained(tmp_path / "out" / "reward", torch_dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(tmp_path / "out" / "reward")
    assert CLIPTokenizer.from_pretrained(tmp_path / "out" / "reward").model_max_length == 24
    inputs = processor(text=["a red cross"], images=pictures.mul(255).byte(), return_tensors="pt", padding=True)
    assert clip(**inputs).logits_per_image.shape == (1, 1)


def test_the_exported_reward_reads_pixels_as_clip_s_processor_normalises_them():
    torch.manual_seed(0)
    clip = build_clip(build_tokenizer(), 16, 1, 1).eval()
    pixels = torch.rand(3, 3, 32, 32)
    normalised = (pixels - torch.tensor(OPENAI_CLIP_MEAN).view(3, 1, 1)) / torch.tensor(OPENAI_CLIP_STD).view(3, 1, 1)
    features = clip.get_image_features(pixel_values=2 * pixels - 1).pooler_output
    assert torch.allclose(
        renormalised(clip).get_image_features(pixel_values=normalised).pooler_output, features, atol=1e-5
    )
    assert not torch.allclose(clip.get_image_features(pixel_values=normalised).pooler_output, features, atol=1e-2)
