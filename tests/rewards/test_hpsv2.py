"""HPSv2 against the authors' program, and AlignProp's and VADER's losses, on a small model in the authors' format."""

import pytest
import torch

from rlr.rewards.hpsv2 import HPSv2, HPSVersion
from rlr.rewards.preprocessing import Preprocessing
from tests.rewards.authors import assert_gradient, facts, gradient, hpsv2, hpsv2_files, matrix, picture, tensors

PROMPTS = facts("hpsv2")["prompts"]
EXPECTED = tensors("hpsv2")


@pytest.fixture(scope="module")
def official():
    return hpsv2(preprocessing=Preprocessing.official)


@pytest.fixture(scope="module")
def training():
    return hpsv2()


@pytest.mark.filterwarnings("ignore:HPSv2.1 reads 77 tokens")
def test_scores_of_files(official):
    scores = matrix(official, "hpsv2", PROMPTS)
    torch.testing.assert_close(scores, EXPECTED["outputs.pil.scores"], atol=3e-6, rtol=0)


def test_what_the_network_reads_of_files(official):
    pixels = torch.cat([official.preprocess(picture("hpsv2", i)) for i in range(5)])
    torch.testing.assert_close(pixels, EXPECTED["outputs.pil.pixel_values"], atol=1e-5, rtol=0)
    features = official.clip.encode_image(pixels, normalize=True)
    torch.testing.assert_close(features, EXPECTED["outputs.pil.image_features"], atol=3e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:HPSv2.1 reads 77 tokens")
def test_text_features(training):
    features = training._text_features(PROMPTS)
    torch.testing.assert_close(features, EXPECTED["outputs.text_features"], atol=3e-6, rtol=0)
    assert torch.equal(training.tokenizer(PROMPTS), EXPECTED["inputs.token_ids"])


@pytest.mark.parametrize("case", facts("hpsv2")["tokens"], ids=lambda case: repr(case["prompt"]))
def test_tokens(training, case):
    ids = training.tokenizer([case["prompt"]])[0]
    assert ids[: len(case["ids"])].tolist() == case["ids"]
    assert ids[len(case["ids"]) :].sum() == 0


@pytest.mark.filterwarnings("ignore:HPSv2.1 reads 77 tokens")
def test_scores_and_gradient_of_alignprop(training):
    scores, found = gradient(training, EXPECTED["inputs.pixels"], PROMPTS)
    torch.testing.assert_close(scores, EXPECTED["outputs.alignprop.scores"], atol=3e-6, rtol=0)
    torch.testing.assert_close(1 - scores, EXPECTED["outputs.alignprop.loss"], atol=3e-6, rtol=0)
    assert_gradient(found, EXPECTED["outputs.alignprop.grad_scores_sum"])


@pytest.mark.filterwarnings("ignore:HPSv2.1 reads 77 tokens")
@pytest.mark.parametrize(("pixels", "outputs"), [("pixels", "vader"), ("pixels_nonsquare", "vader_nonsquare")])
def test_scores_and_gradient_of_vader(training, pixels, outputs):
    scores, found = gradient(training, EXPECTED[f"inputs.{pixels}"], PROMPTS)
    torch.testing.assert_close(scores.mean(), EXPECTED[f"outputs.{outputs}.scores_mean"], atol=3e-6, rtol=0)
    torch.testing.assert_close(1 - scores.mean(), EXPECTED[f"outputs.{outputs}.loss_mean"], atol=3e-6, rtol=0)
    if f"outputs.{outputs}.grad_loss_mean" in EXPECTED:
        assert_gradient(-found / 3, EXPECTED[f"outputs.{outputs}.grad_loss_mean"])


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
    with pytest.raises(ValueError, match=r"is not the HPS_v2\.1_compressed\.pt .* 4067542e34ba2553a738c5ac6c1d75c0\)"):
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
