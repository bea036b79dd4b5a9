"""VideoAlign on a small random Qwen2-VL, against the authors' program written out on classes of transformers and peft."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLVideoProcessor

from rlr.io.weights import blank
from rlr.rewards import VideoAlign
from rlr.rewards.networks.preprocessing import Preprocessing
from rlr.rewards.networks.qwen2vl import VIDEO, patch_grid, resized, to_patches, write_message
from rlr.rewards.networks.videoalign import (
    DIMENSIONS,
    INSTRUCTION,
    LEAST_PIXELS,
    TOKENS,
    BytesResize,
    Network,
    choose_frames,
    merged,
)
from tests.rewards.qwen2vl import by_the_authors as read_by_the_authors
from tests.rewards.qwen2vl import write_base

NORM = {"VQ_mean": 0.2, "VQ_std": 0.5, "MQ_mean": -0.1, "MQ_std": 0.25, "TA_mean": 0.3, "TA_std": 0.125}
EXCLUDED = ["lm_head", "rm_head", "embed_tokens", "visual"]
LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_namespan_exclude": EXCLUDED, "use_rslora": False}
FILE = {
    # one token for two frames of up to 41 pixels a side
    "data_config": {
        "max_frame_pixels": 700, "fps": 2.0, "num_frames": None, "eval_dim": list(DIMENSIONS),
        "prompt_template_type": "detailed_special", "sample_type": "uniform",
    },
    "model_config": {"output_dim": 1, "use_special_tokens": True, "reward_token": "special", "loss_type": "btt"},
    "peft_lora_config": LORA,
    "inference_config": NORM,
}  # fmt: skip
PROMPTS = ["a red circle moving left", "two {text} blue squares"]


class Authors(Qwen2VLForConditionalGeneration):
    """The authors' class: the whole model with a head."""

    def __init__(self, config, outputs: int) -> None:
        super().__init__(config)
        self.rm_head = nn.Linear(config.text_config.hidden_size, outputs, bias=False)


def write(folder: Path, outputs: int = 1) -> nn.Module:
    """Writes the folder as its authors publish it and the base beside it, and returns peft's model that holds the weights."""
    config, words = write_base(folder / "base")
    torch.manual_seed(0)
    model = Authors(config, outputs).eval()
    model.resize_token_embeddings(len(words) + len(TOKENS))
    kinds = (nn.Linear, nn.Embedding)
    chosen = [name for name, part in model.named_modules() if isinstance(part, kinds)]
    chosen = [name for name in chosen if not any(word in name for word in EXCLUDED)]
    lora = LoraConfig(target_modules=chosen, r=4, lora_alpha=8, lora_dropout=0.05, task_type="CAUSAL_LM", bias="none")
    wrapped = get_peft_model(model, lora).eval()
    with torch.no_grad():
        for weight in wrapped.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    (folder / "model_config.json").write_text(json.dumps(FILE))
    save(folder / "checkpoint-11352", older(wrapped.state_dict()))
    return wrapped


def save(folder: Path, state: dict[str, torch.Tensor]) -> None:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "model.pth")


def older(state):
    """The names of the version of transformers that the authors used."""
    old = "base_model.model."
    return {
        name.replace(f"{old}model.visual.", f"{old}visual.").replace(f"{old}model.language_model.", f"{old}model."): w
        for name, w in state.items()
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videoalign")
    return folder, write(folder)


def made(files, **settings) -> VideoAlign:
    folder, _ = files
    return VideoAlign(**{"fps": 8.0, "path": str(folder), "base": str(folder / "base"), "dtype": "float32", **settings})


def videos(count: int = 2, frames: int = 17, height: int = 40, width: int = 60) -> torch.Tensor:
    bytes_ = np.random.default_rng(0).integers(0, 256, (count, frames, 3, height, width), dtype=np.uint8)
    return torch.from_numpy(bytes_) / 255


def processed(video: torch.Tensor, pixels: int) -> dict[str, torch.Tensor]:
    """What torchvision and the processor of transformers make of a video of bytes."""
    size = resized(*video.shape[-2:], LEAST_PIXELS, pixels)
    small = resize(video, list(size), InterpolationMode.BICUBIC, antialias=True).float()
    return Qwen2VLVideoProcessor(do_resize=False)(videos=[small], return_tensors="pt")


@torch.no_grad()
def by_the_authors(files, samples, prompts, chosen: list[int]) -> torch.Tensor:
    """Reading, processor, scatter, language model on sequential positions, head at the tokens, normalization: as published."""
    folder, wrapped = files
    model = wrapped.base_model.model
    words = PreTrainedTokenizerFast.from_pretrained(folder / "base")
    words.add_special_tokens({"additional_special_tokens": list(TOKENS)})
    special, scores = words.convert_tokens_to_ids(list(TOKENS)), []
    for sample, prompt in zip(samples, prompts, strict=True):
        inputs = processed((sample[chosen] * 255).round().to(torch.uint8), 700)
        grid = inputs["video_grid_thw"]
        features = model.model.get_video_features(inputs["pixel_values_videos"], grid).pooler_output
        tokens, hidden = read_by_the_authors(model, words, "<|video_pad|>", grid, features, INSTRUCTION, prompt)
        asked = sum((tokens == token).int() for token in special).bool()
        logits = model.rm_head(hidden)[asked].view(1, 3, -1)
        logits = logits.diagonal(dim1=1, dim2=2) if logits.shape[2] == 3 else logits
        scores.append(logits.reshape(3))
    mean, std = (torch.tensor([NORM[f"{name}_{what}"] for name in DIMENSIONS]) for what in ("mean", "std"))
    return (torch.stack(scores) - mean) / std


def test_scores_are_the_authors(files):
    samples = videos()
    # 17 frames of which 8 are a second are 4.25 at 2 a second
    expected = by_the_authors(files, samples, PROMPTS, [0, 5, 11, 16])
    assert (expected[0] - expected[1]).abs().min() > 1e-3
    reward = made(files, preprocessing=Preprocessing.official)
    found = reward.score(samples, PROMPTS)
    torch.testing.assert_close(
        torch.stack([found.parts[name] for name in DIMENSIONS], 1), expected, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(found.values, expected.sum(1), atol=3e-4, rtol=1e-4)
    assert torch.equal(reward(samples, PROMPTS), found.values)


def order(reward):
    reward.reward_tokens.reverse()


def norm(reward):
    reward.settings = replace(reward.settings, means=reward.settings.means[::-1])


def frames(reward):
    reward.fps *= 0.5


@pytest.mark.parametrize("sabotage", [order, norm, frames])
def test_a_reward_that_is_not_theirs_is_seen(files, sabotage):
    samples = videos()
    expected = by_the_authors(files, samples, PROMPTS, [0, 5, 11, 16])
    reward = made(files, preprocessing=Preprocessing.official)
    sabotage(reward)
    parts = reward.score(samples, PROMPTS).parts
    assert (torch.stack([parts[name] for name in DIMENSIONS], 1) - expected).abs().max() > 1e-3


def test_a_head_of_three_rows_has_one_for_each_dimension(tmp_path):
    files = tmp_path, write(tmp_path, outputs=3)
    samples = videos(1)
    expected = by_the_authors(files, samples, PROMPTS[:1], [0, 5, 11, 16])
    parts = made(files, preprocessing=Preprocessing.official).score(samples, PROMPTS[:1]).parts
    torch.testing.assert_close(torch.stack([parts[name] for name in DIMENSIONS], 1), expected, atol=1e-4, rtol=1e-4)


def test_the_loras_are_merged_as_peft_does(files):
    folder, wrapped = files
    state = {name: w.clone() for name, w in wrapped.state_dict().items()}
    found = merged(state, 2.0, folder)
    with torch.no_grad():
        expected = wrapped.base_model.model.state_dict()
        names = [name for name in expected if name.endswith("q_proj.base_layer.weight")]
        assert len(names) == 2
        for name in names:
            layer = wrapped.base_model.model.get_submodule(name.removesuffix(".base_layer.weight"))
            whole = layer.base_layer.weight + layer.get_delta_weight("default")
            torch.testing.assert_close(found[name.replace(".base_layer", "")], whole, atol=1e-6, rtol=1e-5)
    assert not any("lora" in name or "base" in name for name in found)


def test_the_checkpoint_of_the_most_steps_is_read(files, tmp_path):
    folder, wrapped = files
    shutil.copytree(folder, tmp_path / "copy")
    none = {name: torch.zeros_like(w) for name, w in older(wrapped.state_dict()).items()}
    save(tmp_path / "copy" / "checkpoint-9999", none)
    samples = videos(1)
    before = made(files)(samples, PROMPTS[:1])
    other = made((tmp_path / "copy", wrapped))
    assert torch.equal(other(samples, PROMPTS[:1]), before)
    save(tmp_path / "copy" / "checkpoint-20000", none)
    # the score of a head of zeros
    expected = -sum(NORM[f"{name}_mean"] / NORM[f"{name}_std"] for name in DIMENSIONS)
    assert made((tmp_path / "copy", wrapped))(samples, PROMPTS[:1]).item() == pytest.approx(expected, rel=1e-5)


def test_weights_choose_dimensions(files):
    samples = videos(1)
    parts = made(files).score(samples, PROMPTS[:1]).parts
    one = made(files, weights={"MQ": 2.0})
    assert one(samples, PROMPTS[:1]).item() == pytest.approx(2 * parts["MQ"].item(), rel=1e-5)
    with pytest.raises(ValueError, match=r"expected weights of VQ, MQ, TA, got \['motion'\]"):
        made(files, weights={"motion": 1.0})


def test_training_scores_are_near_and_have_a_gradient_in_the_frames_that_are_read(files):
    smooth = nn.functional.interpolate(videos(2, 17, 3, 4).flatten(0, 1), (28, 28), mode="bicubic").clamp(0, 1)
    smooth = smooth.unflatten(0, (2, 17))
    official, training = (made(files, preprocessing=way) for way in (Preprocessing.official, Preprocessing.training))
    assert (official.differentiable, training.differentiable) == (False, True)
    # nothing is resized here but for the rounding to bytes
    torch.testing.assert_close(training(smooth, PROMPTS), official(smooth, PROMPTS), atol=0.05, rtol=1e-2)
    leaf = smooth.clone().requires_grad_()
    (slope,) = torch.autograd.grad(training(leaf, PROMPTS)[0], leaf)
    assert slope[0].abs().amax((1, 2, 3)).nonzero().flatten().tolist() == [0, 5, 11, 16]
    assert slope[1].abs().max() == 0
    # the directional derivative by differences
    step = 1e-2 * slope / slope.norm()
    up, down = (training((smooth + sign * step), PROMPTS)[0] for sign in (1, -1))
    assert ((up - down) / 2).item() == pytest.approx((slope * step).sum().item(), rel=0.05)


def test_an_update_sees_the_frames_that_are_read_and_no_others(files):
    reward, samples = made(files), videos()
    selection = reward.select_frames(17, seed=3)
    assert selection.frames == [0, 5, 11, 16]
    found, expected = selection.score(samples[:, selection.frames], PROMPTS), reward.score(samples, PROMPTS)
    assert torch.equal(found.values, expected.values)
    assert found.parts.keys() == expected.parts.keys() == set(DIMENSIONS)


@pytest.mark.parametrize(
    ("number", "fps", "expected"),
    [
        # Wan's five seconds
        (81, 16, [0, 9, 18, 27, 36, 44, 53, 62, 71, 80]),
        # four at the least
        (33, 16, [0, 11, 21, 32]),
        (49, 8, [0, 4, 9, 13, 17, 22, 26, 31, 35, 39, 44, 48]),
        # as many as there are
        (5, 16, [0, 1, 3, 4]),
        (3, 16, [0, 2]),
        # 4.75 and 5.25 a second are rounded to an even number
        (38, 16, [0, 12, 25, 37]),
        (42, 16, [0, 8, 16, 25, 33, 41]),
    ],
)
def test_frames_are_chosen_as_published(number, fps, expected):
    assert choose_frames(number, fps, 2.0) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 832), (336, 588)), ((240, 416), (252, 420)), ((512, 512), (448, 448)), ((320, 512), (308, 504))],
)
def test_frames_are_resized_to_128_to_256_tokens(size, expected):
    height, width = resized(*size, LEAST_PIXELS, 200704)
    assert (height, width) == expected
    assert 128 <= height * width / 28**2 <= 256


def test_bytes_are_resized_as_by_torchvision():
    video = (videos(1, 4, 90, 120)[0] * 255).round().to(torch.uint8)
    expected = resize(video, [56, 84], InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal((BytesResize()(video / 255, 56, 84) * 255).round().to(torch.uint8), expected)


def test_patches_are_those_of_the_processor():
    video = (videos(1, 4, 56, 84)[0] * 255).round().to(torch.uint8)
    processor = Qwen2VLVideoProcessor(do_resize=False)
    inputs = processor(videos=[video], return_tensors="pt")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    frames = (video / 255 - mean) / std
    torch.testing.assert_close(to_patches(frames), inputs["pixel_values_videos"], atol=1e-5, rtol=1e-5)
    assert torch.equal(patch_grid(frames), inputs["video_grid_thw"])


def test_the_message_asks_for_each_dimension_once_in_their_order(files):
    reward = made(files)
    tokens = write_message(reward.tokenizer, VIDEO, torch.tensor([[2, 2, 4]]), INSTRUCTION, "a cat")[0].tolist()
    places = [tokens.index(token) for token in reward.reward_tokens]
    assert places == sorted(places)
    assert [tokens.count(token) for token in [*reward.reward_tokens, reward.video_token]] == [1, 1, 1, 4]
    for place, name in zip(places, ("Visual Quality", "Motion Quality", "Text Alignment"), strict=True):
        asked = f"Please provide the ratings of {name}: "
        assert reward.tokenizer.decode(tokens[place - len(asked) : place]) == asked
        assert reward.tokenizer.decode(tokens[place + 1 : place + 5]) == "\nEND"
    text = reward.tokenizer.decode(tokens)
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    )
    assert text.endswith("\nEND\n<|im_end|>\n<|im_start|>assistant\n")
    assert text.index("Textual prompt - a cat\nPlease provide the ratings of Text Alignment") > 0


def test_the_instruction_is_the_published_one():
    assert INSTRUCTION.startswith(
        "\nYou are tasked with evaluating a generated video based on three distinct criteria:"
    )
    for spaced in ("**Visual Quality:**  \n", "possible. \n\n", "**Motion Quality:**  \n", "acceptable.  \n- **Style"):
        assert spaced in INSTRUCTION
    # an accident in one of its lines changes this
    assert hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:16] == "fd7862ecb43bbe39"


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        (
            "data_config",
            "prompt_template_type",
            "simple",
            "expected data_config.prompt_template_type to be 'detailed_sp",
        ),
        (
            "data_config",
            "sample_type",
            "multi_pts",
            "expected data_config.sample_type to be 'uniform', got 'multi_pts'",
        ),
        ("data_config", "num_frames", 8, "expected data_config.num_frames to be None, got 8"),
        ("model_config", "use_special_tokens", False, "expected model_config.use_special_tokens to be True, got False"),
        ("inference_config", "TA_std", None, "lacks 'TA_std'; set the folder that the authors published"),
        ("peft_lora_config", "lora_r", None, "lacks 'lora_r'; set the folder that the authors published"),
    ],
)
def test_settings_that_are_not_supported_are_refused(files, tmp_path, section, name, value, message):
    folder, _ = files
    config = {key: {k: v for k, v in part.items() if (key, k) != (section, name)} for key, part in FILE.items()}
    if value is not None:
        config[section][name] = value
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=re.escape(message)):
        made((tmp_path, None))


def test_a_folder_without_means_has_latent_scores(files, tmp_path):
    folder, _ = files
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model_config.json").write_text(json.dumps({k: v for k, v in FILE.items() if k != "inference_config"}))
    samples = videos(1)
    raw = made((tmp_path, None)).score(samples, PROMPTS[:1]).parts
    for name, value in made(files).score(samples, PROMPTS[:1]).parts.items():
        torch.testing.assert_close((raw[name] - NORM[f"{name}_mean"]) / NORM[f"{name}_std"], value)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (".layers.1.mlp.up_proj.lora_B.default.weight", "lacks .*layers.1.mlp.up_proj.lora_B.default.weight"),
        (".layers.1.mlp.up_proj.base_layer.weight", "lacks .*layers.1.mlp.up_proj.base_layer.weight"),
        ("rm_head.weight", r"does not fit VideoAlign: rm_head.weight is missing"),
        (".norm.weight", "does not fit VideoAlign: language_model.norm.weight is missing"),
    ],
)
def test_a_file_that_lacks_weights_is_refused(files, tmp_path, lost, message):
    folder, wrapped = files
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    state = older(wrapped.state_dict())
    assert any(name.endswith(lost) for name in state)
    save(tmp_path / "checkpoint-11352", {name: w for name, w in state.items() if not name.endswith(lost)})
    with pytest.raises(ValueError, match=message):
        made((tmp_path, None))


def test_the_published_file_has_the_size_of_these_weights():
    """The published bytes are those of network, LoRA and unused output layer in bfloat16, and of the records' headers."""
    text = {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4}
    tokens = 151660
    network = blank(lambda: Network(Qwen2VLConfig(text_config=text, vision_config=vision), tokens, 1))
    layers = [layer for layer in network.language_model.modules() if isinstance(layer, nn.Linear)]
    lora = 64 * sum(layer.in_features + layer.out_features for layer in layers)
    numbers = sum(weight.numel() for weight in network.parameters()) + lora + tokens * text["hidden_size"]
    records = len(network.state_dict()) + 2 * len(layers) + 1
    assert 0 < 5_031_072_529 - 2 * numbers < 400 * records


def test_a_tokenizer_of_another_model_is_refused(files, tmp_path):
    folder, _ = files
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    words = PreTrainedTokenizerFast.from_pretrained(tmp_path / "base")
    words.add_tokens(["another"])
    words.save_pretrained(tmp_path / "base")
    with pytest.raises(
        ValueError, match=r"has embeddings of 266 tokens, and the tokenizer of .* has 267; set the base"
    ):
        made((tmp_path, None))


def test_what_cannot_be_scored_is_refused(files):
    reward = made(files)
    with pytest.raises(ValueError, match=r"VideoAlign: expected a prompt without special tokens <\|…\|>, got 'a <\|TA"):
        reward(videos(1), ["a <|TA_reward|>"])
    with pytest.raises(ValueError, match=r"VideoAlign: expected pixels in \[0, 1\], got \[-1, -1\]"):
        reward(-torch.ones(1, 4, 3, 40, 40), ["a"])
    with pytest.raises(ValueError, match=r"VideoAlign: expected videos of shape \(B, F, 3, H, W\) and B prompts"):
        reward(videos(1)[0], ["a"] * 17)
    with pytest.raises(ValueError, match=r"VideoAlign: expected videos of at least 2 frames, got 1"):
        reward(videos(1, 1), ["a"])
    with pytest.raises(ValueError, match=r"VideoAlign.fps: expected the frames of a second of the videos, got 0"):
        made(files, fps=0)


def test_the_head_stays_in_float32_under_bfloat16(files):
    reward = made(files, dtype="bfloat16")
    kinds = {"rm_head" in name: w.dtype for name, w in reward.network.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    scores = reward(videos(), PROMPTS)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, made(files)(videos(), PROMPTS), atol=0.5, rtol=0.1)
