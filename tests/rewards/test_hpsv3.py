"""HPSv3 on a small random Qwen2-VL, against the authors' program written out on transformers' own classes."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor

from rlr.rewards import HPSv3
from rlr.rewards.networks.hpsv3 import INSTRUCTION, PIXELS, TOKEN
from rlr.rewards.networks.preprocessing import Preprocessing
from rlr.rewards.networks.qwen2vl import FRAMES, renamed, resized, to_patches
from tests.rewards.qwen2vl import by_the_authors as read_by_the_authors
from tests.rewards.qwen2vl import write_base

SMALL = 4 * 28 * 28
"""The pixels of a resized image: four tokens."""


class Authors(Qwen2VLForConditionalGeneration):
    """The authors' class: the whole model with a head."""

    def __init__(self, config) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.rm_head = nn.Sequential(
            nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hpsv3")
    return folder, write(folder)


def write(folder: Path) -> Authors:
    """Writes the base without weights and the file of the weights, and returns the authors' model that holds them."""
    config, words = write_base(folder / "base")
    torch.manual_seed(0)
    model = Authors(config).eval()
    # the tokenizer has one token more, and the embedding as many rows as it has tokens
    model.resize_token_embeddings(len(words) + 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    save_file({name: w.clone() for name, w in model.state_dict().items()}, folder / "HPSv3.safetensors")
    return model


def made(files, **settings) -> HPSv3:
    folder, _ = files
    return HPSv3(**{"path": str(folder), "base": str(folder / "base"), "dtype": "float32", "pixels": SMALL, **settings})


def images(count: int = 2, height: int = 40, width: int = 60) -> torch.Tensor:
    bytes_ = np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    return torch.from_numpy(bytes_) / 255


@torch.no_grad()
def by_the_authors(files, samples, prompts, pixels: int) -> torch.Tensor:
    """Processor, embedding, scatter, language model on sequential positions, head at the token: as published."""
    folder, model = files
    words = PreTrainedTokenizerFast.from_pretrained(folder / "base")
    words.add_special_tokens({"additional_special_tokens": [TOKEN]})
    processor, scores = Qwen2VLImageProcessor(), []
    for sample, prompt in zip(samples, prompts, strict=True):
        array = (sample * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        height, width = resized(*array.shape[:2], pixels, pixels)
        picture = Image.fromarray(array).resize((width, height), Image.Resampling.BICUBIC)
        inputs = processor(picture, return_tensors="pt")
        grid = inputs["image_grid_thw"]
        features = model.model.get_image_features(inputs["pixel_values"], grid).pooler_output
        tokens, hidden = read_by_the_authors(model, words, "<|image_pad|>", grid, features, INSTRUCTION, prompt)
        (logits,) = model.rm_head(hidden)[tokens == words.convert_tokens_to_ids(TOKEN)]
        scores.append(logits[0])
    return torch.stack(scores)


def test_scores_are_the_authors(files):
    samples, prompts = images(), ["a red circle", "two {text} blue squares"]
    expected = by_the_authors(files, samples, prompts, SMALL)
    assert (expected[0] - expected[1]).abs() > 1e-4
    found = made(files, preprocessing=Preprocessing.official)(samples, prompts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_training_scores_are_near_and_have_a_gradient(files):
    # smooth images, which both ways resize alike
    smooth = torch.nn.functional.interpolate(images(2, 3, 4), (56, 56), mode="bicubic").clamp(0, 1)
    official, training = (made(files, preprocessing=way) for way in (Preprocessing.official, Preprocessing.training))
    assert (official.differentiable, training.differentiable) == (False, True)
    # nothing is resized here but for the rounding to bytes
    torch.testing.assert_close(training(smooth, ["a", "b"]), official(smooth, ["a", "b"]), atol=2e-3, rtol=1e-2)
    leaf = smooth.clone().requires_grad_()
    score = training(leaf, ["a", "b"])
    (slope,) = torch.autograd.grad(score[0], leaf)
    assert slope[0].abs().max() > 0
    assert slope[1].abs().max() == 0
    # the directional derivative by differences
    step = 1e-2 * slope / slope.norm()
    up, down = (training((smooth + sign * step), ["a", "b"])[0] for sign in (1, -1))
    assert ((up - down) / 2).item() == pytest.approx((slope * step).sum().item(), rel=0.05)


def test_what_cannot_be_scored_is_refused(files):
    with pytest.raises(ValueError, match=r"a prompt without special tokens <\|…\|>, got 'a <\|Reward\|>'"):
        made(files)(images(1), ["a <|Reward|>"])
    with pytest.raises(ValueError, match=r"HPSv3: expected pixels in \[0, 1\], got \[-1, -1\]"):
        made(files)(-torch.ones(1, 3, 40, 40), ["a"])
    with pytest.raises(ValueError, match=r"HPSv3: expected sides of a ratio of at most 200, got 2 × 500 pixels"):
        made(files)(torch.ones(1, 3, 2, 500), ["a"])


def test_names_of_older_and_newer_versions_are_read(files):
    _, model = files
    new = {name: w for name, w in model.state_dict().items()}
    old = {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): w
        for name, w in new.items()
    }
    assert old.keys() != new.keys()
    assert renamed(old).keys() == renamed(new).keys() == made(files).network.state_dict().keys()


def test_a_file_that_lacks_weights_is_refused(files, tmp_path):
    _, model = files
    state = {name: w.clone() for name, w in model.state_dict().items() if not name.startswith("rm_head.5")}
    save_file(state, tmp_path / "HPSv3.safetensors")
    with pytest.raises(ValueError, match=r"does not fit HPSv3: rm_head.5.bias is missing \(2 such\)"):
        made(files, path=str(tmp_path))


def test_the_head_stays_in_float32_under_bfloat16(files):
    reward = made(files, dtype="bfloat16")
    assert {w.dtype for name, w in reward.network.named_parameters() if "rm_head" in name} == {torch.float32}
    assert {w.dtype for name, w in reward.network.named_parameters() if "rm_head" not in name} == {torch.bfloat16}
    scores = reward(images(), ["a", "b"])
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, made(files)(images(), ["a", "b"]), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (448, 448)),
        ((1024, 1024), (448, 448)),
        ((448, 448), (448, 448)),
        ((768, 512), (532, 364)),
        ((100, 100), (448, 448)),
    ],
)
def test_images_are_resized_to_about_256_tokens(size, expected):
    assert resized(*size, PIXELS, PIXELS) == expected


def test_patches_are_those_of_the_processor():
    image = (images(1, 56, 84)[0] * 255).round().to(torch.uint8)
    processor = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=PIXELS)
    expected = processor(Image.fromarray(image.permute(1, 2, 0).numpy()), return_tensors="pt")["pixel_values"]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    frames = ((image / 255 - mean) / std).expand(FRAMES, -1, -1, -1)
    torch.testing.assert_close(to_patches(frames), expected, atol=1e-5, rtol=1e-5)


def test_the_instruction_is_the_published_one():
    assert INSTRUCTION.startswith("\nYou are tasked with evaluating a generated image based on Visual Quality")
    assert "best. \n\n**Visual Quality:**  \nEvaluate" in INSTRUCTION
    ending = "Textual prompt - {prompt}\n\n\n\nPlease provide the overall ratings of this image: <|Reward|>\n\nEND\n"
    assert INSTRUCTION.endswith(ending)
    # an accident in one of its lines changes this
    assert hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:16] == "e61d58f3c7d3be65"
