"""The networks at full size, with weights by a formula, in files of their authors' formats: nothing else is needed.

The two of ViT-H-14 take 4 GB of memory, as much on the disk, and some minutes on two cores.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from accelerate import init_empty_weights
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from rlr.rewards import PickScore
from rlr.rewards.aesthetic import Aesthetic
from rlr.rewards.head import Head
from rlr.rewards.hpsv2 import HPSv2
from rlr.rewards.imagereward import TEXT, VISION, ImageReward, convert
from rlr.rewards.preprocessing import Preprocessing
from tests.rewards.authors import FIXTURES, assert_gradient, facts, gradient, tensors
from tests.rewards.recipe import fill, group
from tests.rewards.test_aesthetic import unfolded

WIDTHS = [768, 1024, 128, 64, 16, 1]


def shapes(module):
    return {key: list(value.shape) for key, value in module.state_dict().items()}


def grouped(found):
    """Shapes by groups of keys, all blocks of a group having the same."""
    groups = {}
    for key, shape in found.items():
        assert groups.setdefault(group(key), shape) == shape
    return groups


def ungrouped(name, blocks):
    """Shapes by key; ``blocks`` tells of a group how many blocks it has."""
    known = facts("keys")[name].items()
    return {key.replace("#", str(i)): shape for key, shape in known for i in range(blocks(key) if "#" in key else 1)}


@pytest.fixture(scope="module")
def nothing_drawn():
    with init_empty_weights(include_buffers=False):
        yield


def clip(name):
    return CLIPModel(CLIPConfig(**facts("full")[name]["clip_config"]))


def test_the_keys_of_hpsv2(nothing_drawn):
    found = shapes(open_clip.CLIP(**open_clip.get_model_config("ViT-H-14")))
    assert grouped(found) == facts("keys")["hpsv2"]
    assert len(found) == 686


@pytest.mark.parametrize("name", ["pickscore", "aes"])
def test_the_keys_of_clip(nothing_drawn, name):
    found = shapes(clip(name))
    assert grouped(found) == facts("keys")[name]
    assert len(found) == facts("keys")["counts"][name]


def test_the_keys_of_aes_are_among_those_of_clip(nothing_drawn):
    config = facts("full")["aes"]["clip_config"]["vision_config"]
    found = grouped(shapes(CLIPVisionModelWithProjection(CLIPVisionConfig(**config))))
    assert found.items() <= facts("keys")["aes"].items()


def blocks_of_blip(key):
    return 24 if "visual" in key else 12


def test_the_keys_of_imagereward(nothing_drawn):
    modules = convert(ungrouped("imagereward_full", blocks_of_blip))
    assert modules["vision"] == shapes(BlipVisionModel(BlipVisionConfig(**VISION)))
    assert modules["text"] == shapes(BlipTextModel(BlipTextConfig(**TEXT), add_pooling_layer=False))
    assert modules["head"] == shapes(Head(WIDTHS))


def read(i):
    return torch.from_numpy(np.array(Image.open(FIXTURES / f"full_{i}.png"))).permute(2, 0, 1)[None] / 255


def of_files(reward, prompts):
    """The scores [prompt, picture] of the two picture files, with official preprocessing."""
    official = reward.fits[Preprocessing.official]
    before, reward.fit = reward.fit, official
    scores = torch.stack([reward(read(i).expand(2, -1, -1, -1), prompts) for i in range(2)], 1)
    reward.fit = before
    return scores


def check_training(reward, name, prompt, atol):
    scores, slope = gradient(reward, (read(0) * 2 - 1) * 1.15, [prompt])
    torch.testing.assert_close(scores, tensors("full")[f"{name}.outputs.diff.scores"].flatten(), atol=atol, rtol=0)
    assert_gradient(slope[..., 2::5, 2::5], tensors("full")[f"{name}.outputs.diff.grad_scores_sum_sub"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_hpsv2(tmp_path):
    full = facts("full")["hpsv2"]
    with init_empty_weights(include_buffers=False):
        keys = shapes(open_clip.CLIP(**open_clip.get_model_config("ViT-H-14")))
    torch.save({"state_dict": fill(keys, full["recipe"], full["seed"])}, tmp_path / "HPS_v2.1_compressed.pt")
    reward = HPSv2(str(tmp_path), verify=False)
    scores = of_files(reward, full["prompts"])
    torch.testing.assert_close(scores, tensors("full")["hpsv2.outputs.pil.scores"], atol=3e-6, rtol=0)
    check_training(reward, "hpsv2", full["prompts"][0], 3e-6)


def write_tokenizer(folder):
    """CLIP's vocabulary and merges in the layout of transformers, from the file that open_clip brings."""
    words = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {words.get(word, word): i for word, i in SimpleTokenizer().encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))


def write_clip(folder, name):
    full = facts("full")[name]
    with init_empty_weights(include_buffers=False):
        keys = shapes(clip(name))
    save_file(fill(keys, full["recipe"], full["seed"]), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(full["clip_config"]))
    return full


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_pickscore(tmp_path):
    full = write_clip(tmp_path, "pickscore")
    write_tokenizer(tmp_path)
    reward = PickScore(str(tmp_path))
    ids = reward.tokenizer(full["prompts"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert torch.equal(ids, tensors("full")["pickscore.inputs.token_ids"])
    scores = of_files(reward, full["prompts"])
    torch.testing.assert_close(scores, tensors("full")["pickscore.outputs.pil.scores"], atol=2e-4, rtol=0)
    check_training(reward, "pickscore", full["prompts"][0], 2e-4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_aes(tmp_path):
    full = write_clip(tmp_path, "aes")
    folded = tensors("aes_real_head")
    torch.save(unfolded(folded["folded.weight"], folded["folded.bias"].squeeze()), tmp_path / "head.pth")
    reward = Aesthetic(str(tmp_path), str(tmp_path / "head.pth"))
    scores = of_files(reward, ["", ""])
    torch.testing.assert_close(scores[0], tensors("full")["aes.outputs.pil.scores"].flatten(), atol=1e-5, rtol=0)
    check_training(reward, "aes", full["prompts"][0], 1e-5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_imagereward(tmp_path):
    full, expected = facts("full")["imagereward"], tensors("full")
    keys = ungrouped("imagereward_full", blocks_of_blip)
    positions = {key: torch.arange(512)[None] for key in keys if key.endswith("position_ids")}
    keys = {key: shape for key, shape in keys.items() if key not in positions}
    torch.save(fill(keys, full["recipe"], full["seed"]) | positions, tmp_path / "ImageReward.pt")
    reward = ImageReward(str(tmp_path), str(FIXTURES / "imagereward_tokenizer"))
    tokens = torch.stack([expected[f"imagereward.inputs.{part}"] for part in ("input_ids", "attention_mask")], 1)
    # the tokens are given and the prompts are not
    for text, row in zip(("first", "second"), tokens, strict=True):
        reward.texts([text], lambda _, row=row: row[None])
    scores = of_files(reward, ["first", "second"])
    torch.testing.assert_close(scores, expected["imagereward.outputs.pil.scores"], atol=3e-5, rtol=0)
    check_training(reward, "imagereward", "first", 3e-5)
