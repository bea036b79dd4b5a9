import json

import pytest
import torch

from rlr.chain import Chain
from rlr.models import Frozen, Guidance
from rlr.models.videocrafter.architecture import VAEConfig
from rlr.samplers import DDIM
from rlr.toy.models import TinyVideo
from rlr.toy.pretraining.evaluate_videos import COLUMNS, evaluate, main, measure, reconstruct, sample, splits
from rlr.toy.world.motion import parse_video
from rlr.toy.world.prompts import held_out_video_prompts
from rlr.toy.world.tracker import check_videos
from rlr.toy.world.videos import draw_videos
from tests.models.random_vc import small, write_random_vc

CAPTIONS = held_out_video_prompts(40, 777)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model of videos of the built-in world's size."""
    vae = VAEConfig(8, (1, 2, 2), 1, norm_groups=8, mid_attention=False)
    return write_random_vc(tmp_path_factory.mktemp("vc"), small(vae=vae, size=(32, 32), frames=8))


@pytest.fixture(scope="module")
def model(folder):
    return TinyVideo(str(folder), trainable=Frozen())


@pytest.fixture(scope="module")
def drawn():
    clips = [parse_video(caption) for caption in CAPTIONS]
    return clips, draw_videos(clips, 777).float() / 255


def test_reconstructions_are_the_autoencoders(model, drawn):
    _, pixels = drawn
    found = reconstruct(model, pixels[:3])
    for clip, frame in ((0, 0), (2, 7)):
        with torch.no_grad():
            mode = model.vae.encode(pixels[clip, frame][None] * 2 - 1).latent_dist.mode()
            expected = (model.vae.decode(mode).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(found[clip, frame], expected[0], atol=1e-5, rtol=0)


def test_a_sample_depends_on_seed_place_and_caption_only(model):
    chain = Chain(Guidance(model, 3.0), DDIM(2, eta=0.0))
    whole = sample(chain, CAPTIONS[:34], 1)
    assert whole.shape == (34, 8, 3, 32, 32)
    torch.testing.assert_close(sample(chain, CAPTIONS[:2], 1), whole[:2], atol=1e-5, rtol=0)
    assert not torch.allclose(sample(chain, CAPTIONS[:2], 2), whole[:2])


def test_checking_in_parts_is_checking(drawn):
    clips, pixels = drawn
    whole = check_videos(pixels, clips)
    parts = [check_videos(pixels[k : k + 1], [clip]) for k, clip in enumerate(clips)]
    for name in COLUMNS:
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name], equal_nan=True)


def test_rows_are_shares_of_their_own_clips(drawn):
    clips, pixels = drawn
    backwards = pixels.flip(1)
    table = measure({"real renders": pixels, "reconstructions": pixels, "samples": backwards}, clips)
    assert table["real renders"]["all"] == 1
    still = [clip.motion.caption == "standing still" for clip in clips]
    assert table["samples"]["all"] == pytest.approx(sum(still) / len(clips))
    assert table["samples, standing still"]["all"] == 1
    assert table["samples, moving"]["all"] == table["samples, growing"]["motion"] == 0
    assert table["samples, moving"]["dynamic"] == 1
    assert table["samples"]["count"] == 1


def test_every_clip_is_of_one_motion_one_kind_and_one_novelty():
    rows = splits([parse_video(caption) for caption in CAPTIONS])
    for names in (("novel pairs", "known pairs"), ("moving", "growing", "shrinking", "standing still")):
        assert (sum(rows[name].int() for name in names) == 1).all()
    assert (sum(rows[name].int() for name in ("single", "count", "pair")) == 1).all()
    assert all(chosen.any() for chosen in rows.values())


def test_the_program_prints_a_table_and_writes_its_numbers(folder, model, tmp_path, capsys):
    words = f"--model {folder} --prompts 3 --guidance 1 --steps 2 --eta 1 --seed 5 --file {tmp_path / 'numbers.json'}"
    main(words.split())
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["exact check, %", *COLUMNS]
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["real renders", "reconstructions", "samples"]
    assert lines[2].count(" 100.0 |") + lines[2].count(" – |") >= len(COLUMNS) - 1
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    # what no caption claims is NaN, which JSON does not have
    assert json.dumps(numbers) == json.dumps(evaluate(model, 3, 5, 1.0, 2, 1.0)).replace("NaN", "null")
