from pathlib import Path

import pytest
import torch

from rlr.chain import Chain
from rlr.models import Frozen, Guidance, LoRA, VideoCrafter
from rlr.models.prediction import velocity
from rlr.samplers import DDIM
from rlr.toy import packaged
from rlr.toy.models import TinyVideo
from rlr.toy.pretraining.video import architecture
from rlr.toy.world.tokenizer import LENGTH, open_clip_tokenizer
from tests.models.random_vc import small, write_random_vc

SCALE_FACTOR = 0.39286282658576965
"""That of the built-in world's autoencoder."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_vc(
        tmp_path_factory.mktemp("tiny_video"), architecture(open_clip_tokenizer().vocab_size, SCALE_FACTOR)
    )


def test_a_model_of_the_built_in_size_is_written_and_read_back(folder: Path) -> None:
    model = TinyVideo(str(folder), trainable=LoRA(rank=2))
    assert isinstance(model, VideoCrafter)
    assert (model.latent_shape(model.size), model.size.frames, model.size.fps) == ((4, 8, 8, 8), 8, 8)
    assert model.architecture.prediction is velocity
    assert model.text.length == LENGTH
    assert model.noise_schedule.scale(999) == pytest.approx(0.7)
    assert sum(w.numel() for w in model.unet.parameters() if not w.requires_grad) == pytest.approx(3.0e6, rel=0.1)


def test_prompts_become_clips(folder: Path) -> None:
    model = Guidance(TinyVideo(str(folder), trainable=Frozen()), 3.0)
    chain = Chain(model, DDIM(4))
    states = chain.sample(chain.encode(["a red circle", "two blue squares"]), chain.draw([0, 1])).states
    clips = model.decode(states[0])
    assert clips.shape == (2, 8, 3, 32, 32)
    assert (clips >= 0).all()
    assert (clips <= 1).all()


def test_a_missing_built_in_model_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packaged.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="built-in model of videos is missing from this installation"):
        TinyVideo()


def test_the_packaged_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "assets" / "tiny_video").mkdir(parents=True)
    write_random_vc(tmp_path / "assets" / "tiny_video", small())
    monkeypatch.setattr(packaged.resources, "files", lambda package: tmp_path)
    model, expected = (
        TinyVideo(trainable=Frozen()),
        VideoCrafter(str(tmp_path / "assets" / "tiny_video"), trainable=Frozen()),
    )
    x = torch.randn(1, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    condition = model.encode(["a red circle"])
    assert torch.equal(model.denoise(x, 500, condition), expected.denoise(x, 500, condition))
