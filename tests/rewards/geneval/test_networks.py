"""The networks of GenEval: small random ones in the layouts of transformers and open_clip."""

import json

import numpy as np
import pytest
import torch
from open_clip import create_model, get_tokenizer, image_transform
from PIL import Image
from torch.nn import functional as F
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor, SwinConfig

from rlr.rewards import CLIPColors, Detection, GenEval, Mask2Former
from rlr.rewards.geneval.colors import crop
from rlr.rewards.geneval.mask2former import _resized
from rlr.rewards.geneval.names import COLORS, NAMES
from tests.rewards.geneval.scenes import LINES, write


def small(labels: int = 80) -> Mask2FormerConfig:
    """A network of 60,000 weights."""
    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    return Mask2FormerConfig(
        backbone_config=swin, num_labels=labels, num_queries=10, hidden_dim=32, feature_size=32, mask_feature_size=32,
        encoder_layers=1, encoder_feedforward_dim=32, decoder_layers=2, num_attention_heads=2, dim_feedforward=32,
    )  # fmt: skip


@pytest.fixture(scope="module")
def detector_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mask2former")
    torch.manual_seed(0)
    Mask2FormerForUniversalSegmentation(small()).save_pretrained(folder)
    Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 107}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    model = create_model(f"local-dir:{folder}", load_weights=False)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return f"local-dir:{folder}"


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


# ---------------------------------------------------------------- Mask2Former


def logits(*queries: tuple[int, float]) -> torch.Tensor:
    """Class logits of queries that give a class a probability, and the rest to nothing."""
    rows = torch.full((len(queries), 81), -torch.inf)
    for row, (name, probability) in zip(rows, queries, strict=True):
        row[name], row[80] = np.log(probability), np.log(1 - probability)
    return rows


def test_confidence_and_box_are_those_of_the_mask(detector_folder):
    masks = torch.full((2, 6, 8), -3.0)
    masks[0, 1:3, 2:5] = 2.0
    masks[0, 2, 4] = 1.0
    cat, _ = NAMES.index("cat"), NAMES.index("dog")
    (found,) = [
        one for one in Mask2Former(detector_folder)._objects(logits((cat, 0.75), (16, 0.5)), masks) if one.score > 0
    ]
    inside = (5 * torch.tensor(2.0).sigmoid() + torch.tensor(1.0).sigmoid()) / 6
    assert (found.name, found.box) == ("cat", (2, 1, 5, 3))
    assert found.score == pytest.approx(0.75 * inside.item())
    # the second query has no pixel
    assert found.mask is not None
    assert found.mask.sum() == 6
    assert found.mask[1:3, 2:5].all()


def test_masks_lose_the_padding_before_they_get_the_size_of_the_image():
    # an image of 20 × 10 pixels that was resized to 8 × 4 and padded to 8 × 8
    masks = torch.cat([torch.ones(1, 8, 4), -torch.ones(1, 8, 4)], 2)
    seen = torch.zeros(8, 8, dtype=torch.bool)
    seen[:, :4] = True
    resized = _resized(masks, seen, (20, 10, 3))
    assert resized.shape == (1, 20, 10)
    torch.testing.assert_close(resized, torch.ones(1, 20, 10))


def test_a_batch_of_unequal_images_is_each_image_alone(detector_folder):
    detector = Mask2Former(detector_folder, chunk=3)
    images = [noise(64, 64), noise(48, 72), noise(72, 48), noise(64, 64)[::-1].copy()]
    together, alone = detector(images), [detector([image])[0] for image in images]
    assert len(together) == 4
    for image, one, other in zip(images, together, alone, strict=True):
        assert len(one) > 0
        assert {detection.name for detection in one} <= set(NAMES)
        # what padding changes in attention is small
        assert max(d.score for d in one) == pytest.approx(max(d.score for d in other), rel=0.1)
        for detection in one:
            left, upper, right, lower = detection.box
            assert detection.mask is not None
            assert detection.mask.shape == image.shape[:2]
            rows, columns = np.nonzero(detection.mask)
            assert (left, upper, right, lower) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert 0 < detection.score < 1


def test_square_images_in_a_batch_are_exactly_each_alone(detector_folder):
    detector = Mask2Former(detector_folder)
    images = [noise(64, 64), noise(64, 64)[:, ::-1].copy()]
    for one, other in zip(detector(images), [detector([image])[0] for image in images], strict=True):
        assert [d.box for d in one] == [d.box for d in other]
        assert [d.score for d in one] == pytest.approx([d.score for d in other], abs=1e-6)


def test_a_model_of_other_classes_is_refused(tmp_path):
    Mask2FormerForUniversalSegmentation(small(133)).save_pretrained(tmp_path)
    Mask2FormerImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"has 133 classes, expected the 80 of names; use a model for instances of COCO"
    ):
        Mask2Former(str(tmp_path))


# ---------------------------------------------------------------- colors


def test_a_crop_is_gray_outside_of_the_mask():
    image = np.full((10, 12, 3), (255, 0, 0), dtype=np.uint8)
    mask = np.zeros((10, 12), dtype=bool)
    mask[2:6, 3:8] = True
    mask[2, 3] = False
    found = np.array(crop(image, Detection("cat", 0.9, (3, 2, 8, 6), mask)))
    assert found.shape == (4, 5, 3)
    assert found[0, 0].tolist() == [153, 153, 153]
    assert (found.reshape(-1, 3)[1:] == (255, 0, 0)).all()
    whole = np.array(crop(image, Detection("cat", 0.9, (0, 0, 12, 10))))
    assert (whole == image).all()


def test_a_color_is_the_nearest_mean_of_three_templates(clip_folder):
    """The other route: the zero-shot classifier of open_clip's authors, written out."""
    colors = CLIPColors(clip_folder, pretrained=None)
    model, tokenizer = create_model(clip_folder).eval(), get_tokenizer(clip_folder)
    transform = image_transform(32, is_train=False)
    weights = []
    for color in COLORS:
        texts = [f"a photo of a {color} bus", f"a photo of a {color}-colored bus", f"a photo of a {color} object"]
        mean = F.normalize(model.encode_text(tokenizer(texts)), dim=-1).mean(dim=0)
        weights.append(mean / mean.norm())
    image = noise(64, 80)
    boxes = [(0, 0, 40, 30), (10, 20, 70, 60), (30, 0, 80, 64), (5, 5, 25, 60), (0, 40, 12, 52), (50, 3, 58, 60)]
    objects = [Detection("bus", 0.9, box) for box in boxes]
    crops = torch.stack([transform(Image.fromarray(image).crop(box)) for box in boxes])
    logits = 100 * F.normalize(model.encode_image(crops), dim=-1) @ torch.stack(weights, dim=1)
    expected = [COLORS[k] for k in logits.argmax(1)]
    assert colors(image, objects, "bus") == expected
    assert colors(image, objects[::-1], "bus") == expected[::-1]
    # a reward of other texts would name others
    assert colors(image, objects, "cat") != expected or len(set(expected)) == 1


def test_the_reward_moves_and_freezes_its_networks(detector_folder, clip_folder, tmp_path):
    reward = GenEval(
        write(tmp_path), Mask2Former(detector_folder), CLIPColors(clip_folder, pretrained=None), threshold=0.0
    )
    assert not any(weight.requires_grad for weight in reward.parameters())
    assert len(list(reward.parameters())) > 100
    samples = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    scores = reward(samples, [LINES[0]["prompt"], LINES[5]["prompt"]])
    assert set(scores.tolist()) <= {0.0, 1.0}
