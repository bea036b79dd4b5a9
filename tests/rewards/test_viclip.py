"""ViCLIP against its authors' own network and tokenizer, and the frames that it reads."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rlr.io.weights import blank
from rlr.rewards import Combine, FrameReward, PickScore, Preprocessing, RandomFrame, ViCLIP
from rlr.rewards.networks.viclip import MEAN, STD
from rlr.rewards.networks.viclip_network import ViCLIPNetwork, ViCLIPSizes
from tests.rewards.folder import FOLDER
from tests.rewards.random_viclip import SMALL, write
from tests.rewards.viclip_authors import authors_modules, build

PROMPTS = ["a cat jumps", "two dogs run in the rain"]


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    with authors_modules(tmp_path_factory.mktemp("vbench")) as found:
        yield found


@pytest.fixture(scope="module")
def authors(modules):
    return build(modules)


@pytest.fixture(scope="module")
def file(authors, tmp_path_factory):
    return write(authors, tmp_path_factory.mktemp("viclip"))


@pytest.fixture(scope="module")
def reward(file):
    return ViCLIP(str(file), SMALL)


def videos(frames: int = 8, count: int = 2, height: int = 28, width: int = 28):
    return torch.rand(count, frames, 3, height, width, generator=torch.Generator().manual_seed(frames))


def test_scores_and_gradients_are_those_of_the_authors_network(authors, reward):
    x, y = videos().requires_grad_(), videos().requires_grad_()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    features = authors.encode_vision((y - mean) / std, test=True)
    texts = torch.cat([authors.get_text_features(prompt, None, {}) for prompt in PROMPTS])
    expected = (F.normalize(features, dim=-1) * texts).sum(-1)
    scores = reward(x, PROMPTS)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    assert (scores.detach()[0] - scores.detach()[1]).abs() > 1e-2
    assert scores.detach().abs().max() < 1
    slope, their_slope = (torch.autograd.grad(found.sum(), pixels)[0] for found, pixels in ((scores, x), (expected, y)))
    torch.testing.assert_close(slope, their_slope, rtol=1e-4, atol=1e-6)
    # their own encode path normalizes without a gradient
    with torch.no_grad():
        torch.testing.assert_close(authors.get_vid_features((y - mean) / std), F.normalize(features, dim=-1))


def test_names_and_shapes_of_the_full_size_are_those_of_the_authors(modules):
    theirs = blank(lambda: modules.viclip.ViCLIP(tokenizer=object(), pretrain=None)).state_dict()
    ours = blank(lambda: ViCLIPNetwork(ViCLIPSizes())).state_dict()
    assert {name: w.shape for name, w in ours.items()} == {name: w.shape for name, w in theirs.items()}
    assert sum(w.numel() for w in ours.values()) == 427_590_145


@pytest.mark.parametrize(
    "prompt", ["a cat", "A CAT,  jumping!", "Café &amp; crème — «naïve»", "x" * 5 + " y" * 60, "", "日本 🎥 film"]
)
def test_tokens_are_those_of_the_authors(authors, reward, prompt):
    theirs = authors.text_encoder.tokenize(prompt, context_length=32)
    assert torch.equal(reward.tokenizer([prompt]).int(), theirs)
    assert reward._is_cut(prompt) is (len(prompt) > 60)


def test_a_prompt_that_loses_its_end_is_named(file):
    with pytest.warns(UserWarning, match=r"ViCLIP reads 32 tokens and ignores the end of 1 prompt\(s\).*'a cat"):
        ViCLIP(str(file), SMALL)(videos(), ["a dog", "a cat " * 40])


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (8, [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (16, [[0, 2, 4, 6, 8, 10, 12, 14], [1, 3, 5, 7, 9, 11, 13, 15]]),
        (12, [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (17, [[0, 2, 4, 6, 8, 10, 12, 14], [1, 3, 5, 7, 9, 11, 13, 15]]),
        (24, [list(range(j, 24, 3)) for j in range(3)]),
    ],
)
def test_which_frames(reward, frames, expected):
    assert reward.sets(frames) == expected
    assert {tuple(reward.select_frames(frames, seed).frames) for seed in range(30)} == set(map(tuple, expected))


def test_the_score_of_a_video_is_the_mean_of_its_sets_of_frames(reward):
    x = videos(16)
    whole, selections = reward(x, PROMPTS), [reward.select_frames(16, seed) for seed in range(400)]
    parts = {tuple(s.frames): s.score(x[:, s.frames], PROMPTS).values for s in selections[:30]}
    torch.testing.assert_close(torch.stack(list(parts.values())).mean(0), whole)
    one, other = parts.values()
    assert (one - other).abs().max() > 1e-3
    first = sum(selection.frames[0] == 0 for selection in selections)
    assert abs(first - 200) < 4 * (400 / 4) ** 0.5
    state = torch.get_rng_state()
    reward.select_frames(16, 3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("frames", "read"), [(8, range(8)), (16, range(16)), (12, range(8))])
def test_the_gradient_reaches_every_frame_that_is_read(reward, frames, read):
    x = videos(frames, height=20, width=36).requires_grad_()
    (slope,) = torch.autograd.grad(reward(x, PROMPTS)[0], x)
    assert slope[0].abs().amax((1, 2, 3)).gt(0).tolist() == [frame in read for frame in range(frames)]
    assert slope[1].abs().max() == 0


def test_the_order_of_frames_counts(reward):
    x = videos()
    assert (reward(x.flip(1), PROMPTS) - reward(x, PROMPTS)).abs().max() > 1e-3


def test_a_sample_scores_the_same_in_every_batch_and_chunk(file, reward):
    x = videos(count=3)
    prompts = [*PROMPTS, "rain"]
    alone = torch.cat([reward(x[i : i + 1], prompts[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(reward(x, prompts), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(ViCLIP(str(file), SMALL, chunk=1)(x, prompts), alone, rtol=0, atol=1e-5)


def test_what_the_network_reads(file, reward):
    x = videos(height=42, width=56)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    cut = F.interpolate(x.flatten(0, 1), (28, 37), mode="bicubic", antialias=True, align_corners=False)[..., 4:32]
    torch.testing.assert_close(reward.preprocess(x).flatten(0, 1), (cut - mean) / std)
    # that of the authors' demo: OpenCV's resize of bytes
    official, levels = ViCLIP(str(file), SMALL, Preprocessing.official), (255 * x).round().byte()
    bytes_ = [cv2.resize(frame, (28, 28)) for frame in levels.flatten(0, 1).permute(0, 2, 3, 1).numpy()]
    expected = (torch.from_numpy(np.stack(bytes_)).permute(0, 3, 1, 2) / 255 - mean) / std
    found = official.preprocess(levels / 255).flatten(0, 1)
    # half a level, and the arithmetic of OpenCV in fixed point
    assert (found - expected).abs().max() < 1.1 / 255 / 0.224
    assert official.differentiable


def test_other_samples_are_refused(reward):
    with pytest.raises(
        ValueError, match=r"ViCLIP: expected videos of shape \(B, F, 3, H, W\) and B prompts, got shape"
    ):
        reward(videos()[:, 0], PROMPTS)
    with pytest.raises(ValueError, match=r"ViCLIP reads 8 frames, and the video has 5; make videos of at least 8"):
        reward(videos(5), PROMPTS)
    with pytest.raises(ValueError, match=r"ViCLIP reads 8 frames, and the video has 7"):
        reward.select_frames(7, 0)
    with pytest.raises(ValueError, match=r"ViCLIP: expected pixels in \[0, 1\]"):
        reward(2 * videos() - 1, PROMPTS)
    with pytest.raises(ValueError, match="ViCLIP scores videos, and the model makes images"):
        reward.check(video=False)


def test_a_file_that_does_not_fit_is_one_sentence(authors, file, tmp_path: Path):
    state = dict(authors.state_dict())
    del state["vision_encoder.proj"]
    state["text_encoder.extra"] = torch.zeros(1)
    torch.save({"model": state}, tmp_path / "cut.pth")
    message = r"cut\.pth does not fit ViCLIPNetwork: vision_encoder\.proj is missing .*, text_encoder\.extra is foreign"
    with pytest.raises(ValueError, match=message):
        ViCLIP(str(tmp_path / "cut.pth"), SMALL)
    # without sizes it is the published network
    with pytest.raises(ValueError, match="has another shape"):
        ViCLIP(str(file))
    assert ViCLIP(str(file.parent), SMALL).label == "ViCLIP"


def test_the_mix_of_t2v_turbo(reward):
    """One frame for the preference, eight for the video, from the frames of both."""
    pick = PickScore(str(FOLDER))
    mix = Combine({"image": FrameReward(pick, RandomFrame()), "video": reward}, {"image": 1.0, "video": 2.0})
    x = videos(16, height=32, width=32)
    whole = mix.score(x, PROMPTS)
    torch.testing.assert_close(whole.values, whole.parts["image"] + 2 * whole.parts["video"])
    selection, own = mix.select_frames(16, 5), reward.select_frames(16, 5)
    assert set(own.frames) <= set(selection.frames)
    assert len(selection.frames) in (8, 9)
    pixels = x[:, selection.frames].clone().requires_grad_()
    parts = selection.score(pixels, PROMPTS)
    torch.testing.assert_close(parts.parts["video"], own.score(x[:, own.frames], PROMPTS).values, rtol=0, atol=1e-5)
    (slope,) = torch.autograd.grad(parts.values.sum(), pixels)
    assert (slope.abs().amax((0, 2, 3, 4)) > 0).all()
