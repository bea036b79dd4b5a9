"""The networks at full size, with weights by a formula, in files of their authors' formats: nothing else is needed.

The two of ViT-H-14 take 4 GB of memory, as much on the disk, and some minutes on two cores.
"""

import gzip
import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from safetensors.torch import save_file

from rlr.rewards import PickScore
from rlr.rewards.networks.aesthetic import Aesthetic
from rlr.rewards.networks.hpsv2 import HPSv2
from rlr.rewards.networks.imagereward import ImageReward
from rlr.rewards.networks.preprocessing import Preprocessing
from tests.rewards.authors import assert_gradient, gradient, matrix, picture
from tests.rewards.recipe import fill
from tests.rewards.test_aesthetic import unfolded
from tests.rewards.vectors import documents, facts, reads

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def of(vectors, case):
    """The vectors of a case, and its two image files."""
    own = {key.removeprefix(f"{case}/"): vectors[key] for key in vectors}
    return own, [picture(own[f"inputs.image_{i}"]) for i in range(2)]


def weights(case, shapes):
    """The state dict by the formula."""
    full = facts(case)
    return fill(shapes, full["recipe"], full["seed"])


def of_files(reward, files, prompts):
    """The scores [prompt, image] of image files and what the network reads of them, with official preprocessing."""
    official = reward.fits[Preprocessing.official]
    before, reward.fit = reward.fit, official
    scores, pixels = matrix(reward, files, prompts), torch.cat([reward.preprocess(file) for file in files])
    reward.fit = before
    return scores, pixels


def check_training(reward, expected, file, prompt, atol):
    scores, slope = gradient(reward, (file * 2 - 1) * 1.15, [prompt])
    torch.testing.assert_close(scores, expected["outputs.diff.scores"].flatten(), atol=atol, rtol=0)
    assert_gradient(slope[..., 2::5, 2::5], expected["outputs.diff.grad_scores_sum_sub"])


@reads("full", "full_hpsv2/*")
def test_hpsv2(tmp_path, vectors):
    expected, files = of(vectors, "full_hpsv2")
    shapes = documents("lists")["keys_hpsv2_vit_h14"]["keys"]
    torch.save({"state_dict": weights("full_hpsv2", shapes)}, tmp_path / "HPS_v2.1_compressed.pt")
    reward, prompts = HPSv2(str(tmp_path), verify=False), facts("full_hpsv2")["prompts"]
    assert facts("full_hpsv2")["open_clip_model"] in open_clip.list_models()
    assert torch.equal(reward.tokenizer(prompts), expected["inputs.token_ids"])
    scores, pixels = of_files(reward, files, prompts)
    torch.testing.assert_close(scores, expected["outputs.pil.scores"], atol=3e-6, rtol=0)
    features = reward.clip.encode_image(pixels, normalize=True)
    torch.testing.assert_close(features, expected["outputs.pil.image_features"], atol=3e-6, rtol=0)
    torch.testing.assert_close(reward._text_features(prompts), expected["outputs.text_features"], atol=3e-6, rtol=0)
    check_training(reward, expected, files[0], prompts[0], 3e-6)


def write_tokenizer(folder):
    """CLIP's vocabulary and merges in the layout of transformers, from the file that open_clip brings."""
    words = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {words.get(word, word): i for word, i in SimpleTokenizer().encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))


def write_clip(folder, case, keys):
    save_file(weights(case, documents("lists")[keys]["keys"]), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(facts(case)["clip_config"]))


@reads("full", "full_pickscore/*")
def test_pickscore(tmp_path, vectors):
    expected, files = of(vectors, "full_pickscore")
    write_clip(tmp_path, "full_pickscore", "keys_pickscore_clip_h14")
    write_tokenizer(tmp_path)
    reward, prompts = PickScore(str(tmp_path)), facts("full_pickscore")["prompts"]
    tokens = reward.tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt")
    assert torch.equal(tokens.input_ids, expected["inputs.token_ids"])
    assert torch.equal(tokens.attention_mask, expected["inputs.attention_mask"])
    scores, pixels = of_files(reward, files, prompts)
    torch.testing.assert_close(scores, expected["outputs.pil.scores"], atol=2e-4, rtol=0)
    embeddings = reward.clip.get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(embeddings, expected["outputs.pil.image_embeds_raw"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reward._text_features(prompts), expected["outputs.text_features"], atol=3e-6, rtol=0)
    check_training(reward, expected, files[0], prompts[0], 2e-4)


@reads("full", "full_aes/*")
def test_aes(tmp_path, vectors):
    expected, files = of(vectors, "full_aes")
    write_clip(tmp_path, "full_aes", "keys_aes_clip_l14")
    torch.save(unfolded(), tmp_path / "aesthetic-model.pth")
    reward = Aesthetic(str(tmp_path), str(tmp_path))
    scores, pixels = of_files(reward, files, ["", ""])
    torch.testing.assert_close(scores[0], expected["outputs.pil.scores"].flatten(), atol=1e-5, rtol=0)
    embeddings = reward.clip(pixel_values=pixels).image_embeds
    torch.testing.assert_close(embeddings, expected["outputs.pil.image_embeds_raw"], atol=1e-5, rtol=1e-5)
    check_training(reward, expected, files[0], facts("full_aes")["prompts"][0], 1e-5)


def write_words(folder):
    """A vocabulary in BERT's format, of its size and with its special tokens, in which word i is called ``w<i>``."""
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    (folder / "vocab.txt").write_text("\n".join(special.get(i, f"w{i}") for i in range(30522)) + "\n")


def words(ids, mask):
    """The prompt that has these tokens, without the two at its ends."""
    return " ".join(f"w{i}" for i in ids[mask.bool()][1:-1].tolist())


@reads("full", "full_imagereward/*")
def test_imagereward(tmp_path, vectors):
    expected, files = of(vectors, "full_imagereward")
    shapes = documents("lists")["keys_imagereward_full"]["keys"]
    positions = {key: torch.arange(512)[None] for key in shapes if key.endswith("position_ids")}
    shapes = {key: shape for key, shape in shapes.items() if key not in positions}
    torch.save(weights("full_imagereward", shapes) | positions, tmp_path / "ImageReward.pt")
    write_words(tmp_path)
    reward = ImageReward(str(tmp_path), str(tmp_path))
    ids, mask = expected["inputs.input_ids"], expected["inputs.attention_mask"]
    prompts = [words(*row) for row in zip(ids, mask, strict=True)]
    assert torch.equal(reward._text_features(prompts), torch.stack([ids, mask], 1))
    assert reward.tokenizer("[DEC] [ENC]").input_ids[1:-1] == [30522, 30523]
    scores, pixels = of_files(reward, files, prompts)
    torch.testing.assert_close(scores, expected["outputs.pil.scores"], atol=3e-5, rtol=0)
    states = reward.vision(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(states[:, 0], expected["outputs.pil.image_embeds_cls"], atol=3e-5, rtol=0)
    check_training(reward, expected, files[0], prompts[0], 3e-5)
