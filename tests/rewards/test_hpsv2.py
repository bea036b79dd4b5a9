"""HPSv2 against the authors' program, and AlignProp's and VADER's losses, on a small model in the authors' format."""

import pytest
import torch

from rlr.rewards.networks.hpsv2 import HPSv2, HPSVersion
from rlr.rewards.networks.preprocessing import Preprocessing
from tests.rewards.authors import assert_gradient, gradient, hpsv2, hpsv2_files, matrix, pictures
from tests.rewards.vectors import facts, reads

PROMPTS = facts("hpsv2_tiny")["prompts"]
# the third prompt is longer than the model reads
cut = pytest.mark.filterwarnings("ignore:HPSv2.1 reads 77 tokens")


@pytest.fixture(scope="module")
def official():
    return hpsv2(preprocessing=Preprocessing.official)


@pytest.fixture(scope="module")
def training():
    return hpsv2()


@reads("hpsv2_tiny", "weights.*")
def test_the_network_has_the_weights_of_the_file(training, vectors):
    found = training.clip.state_dict()
    embedding = found.pop("token_embedding.weight")
    ids, rows = (vectors[f"weights.token_embedding.weight#{part}"] for part in ("ids", "rows"))
    assert torch.equal(embedding[ids], rows)
    assert embedding.abs().sum() == rows.abs().sum()
    assert len(found) == len(vectors) - 2
    for key, value in found.items():
        assert torch.equal(value, vectors[f"weights.{key}"])


@cut
@reads("hpsv2_tiny", "inputs.image_*", "outputs.pil.scores")
def test_scores_of_files(official, vectors):
    scores = matrix(official, pictures(vectors), PROMPTS)
    torch.testing.assert_close(scores, vectors["outputs.pil.scores"], atol=3e-6, rtol=0)


@reads("hpsv2_tiny", "inputs.image_*", "outputs.pil.pixel_values", "outputs.pil.image_features")
def test_what_the_network_reads_of_files(official, vectors):
    pixels = torch.cat([official.preprocess(file) for file in pictures(vectors)])
    torch.testing.assert_close(pixels, vectors["outputs.pil.pixel_values"], atol=1e-5, rtol=0)
    features = official.clip.encode_image(pixels, normalize=True)
    torch.testing.assert_close(features, vectors["outputs.pil.image_features"], atol=3e-6, rtol=0)


@cut
@reads("hpsv2_tiny", "inputs.token_ids", "outputs.text_features")
def test_text_features(training, vectors):
    features = training._text_features(PROMPTS)
    torch.testing.assert_close(features, vectors["outputs.text_features"], atol=3e-6, rtol=0)
    assert torch.equal(training.tokenizer(PROMPTS), vectors["inputs.token_ids"])


@reads("lists", "hpsv2_tokenizer")
def test_tokens(training, vectors):
    cases = vectors["hpsv2_tokenizer"]["cases"]
    assert len(cases) == 19
    for case in cases:
        ids = training.tokenizer([case["prompt"]])[0]
        assert ids[: len(case["ids"])].tolist() == case["ids"]
        assert ids[len(case["ids"]) :].sum() == 0


@cut
@reads("hpsv2_tiny", "inputs.pixels", *(f"outputs.alignprop.{name}" for name in ("scores", "loss", "grad_scores_sum")))
def test_scores_and_gradient_of_alignprop(training, vectors):
    scores, found = gradient(training, vectors["inputs.pixels"], PROMPTS)
    torch.testing.assert_close(scores, vectors["outputs.alignprop.scores"], atol=3e-6, rtol=0)
    torch.testing.assert_close(1 - scores, vectors["outputs.alignprop.loss"], atol=3e-6, rtol=0)
    assert_gradient(found, vectors["outputs.alignprop.grad_scores_sum"])


@cut
@reads(
    "hpsv2_tiny", "inputs.{x}", *(f"outputs.{{y}}.{name}" for name in ("scores_mean", "loss_mean", "grad_loss_mean"))
)
@pytest.mark.parametrize(("x", "y"), [("pixels", "vader"), ("pixels_nonsquare", "vader_nonsquare")])
def test_scores_and_gradient_of_vader(training, vectors, x, y):
    scores, found = gradient(training, vectors[f"inputs.{x}"], PROMPTS)
    torch.testing.assert_close(scores.mean(), vectors[f"outputs.{y}.scores_mean"], atol=3e-6, rtol=0)
    torch.testing.assert_close(1 - scores.mean(), vectors[f"outputs.{y}.loss_mean"], atol=3e-6, rtol=0)
    assert_gradient(-found / 3, vectors[f"outputs.{y}.grad_loss_mean"])


def test_the_version_is_in_the_name_and_the_scale_is_stated():
    assert [hpsv2(version=version).label for version in HPSVersion] == ["HPSv2.0", "HPSv2.1"]
    assert HPSv2.scales == {"x100": 100}


@pytest.mark.parametrize("prompt", ["a cat " * 40, "a cat<end_of_text> on a mat"])
def test_a_prompt_that_loses_its_end_is_named(prompt):
    with pytest.warns(UserWarning, match=r"HPSv2\.1 reads 77 tokens and ignores the end of 1 prompt\(s\).*'a cat"):
        hpsv2()(torch.rand(2, 3, 32, 32), ["a dog", prompt])


def test_a_file_that_bears_a_published_name_must_be_the_published_one(tmp_path):
    path, architecture = hpsv2_files()
    other = tmp_path / "HPS_v2.1_compressed.pt"
    other.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"expected the HPS_v2\.1_compressed\.pt .* 4067542e34ba2553a738c5ac6c1d75c0"):
        HPSv2(str(other), architecture=architecture)
    with pytest.raises(ValueError, match=r"is the file of HPSv2\.1, and version 2\.0 was asked for; pass version=v2_1"):
        HPSv2(str(other), HPSVersion.v2_0, architecture, verify=False)
    assert HPSv2(str(tmp_path), architecture=architecture, verify=False).label == "HPSv2.1"


def test_a_lacking_weight_is_named(tmp_path):
    path, architecture = hpsv2_files()
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["visual.proj"]
    content["state_dict"]["text_projection"] = torch.zeros(3, 3)
    torch.save(content, tmp_path / "cut.pt")
    message = (
        r"cut.pt does not fit CLIP: visual.proj is missing \(1 such\), text_projection has another shape \(1 such\);"
    )
    with pytest.raises(ValueError, match=message):
        HPSv2(str(tmp_path / "cut.pt"), architecture=architecture)


def test_an_unknown_architecture_is_named():
    with pytest.raises(ValueError, match="open_clip knows no architecture 'ViT-Z'"):
        HPSv2("/nowhere", architecture="ViT-Z")
