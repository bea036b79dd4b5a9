"""The names and shapes of the published files' weights are those of the networks that are built for them."""

from typing import Any

import open_clip
import pytest
import torch
from accelerate import init_empty_weights
from torch.nn import functional as F
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

from rlr.rewards.networks.head import Head
from rlr.rewards.networks.imagereward import TEXT, VISION, convert
from tests.rewards.authors import hpsv2
from tests.rewards.vectors import facts, reads


@pytest.fixture
def nothing_drawn():
    with init_empty_weights(include_buffers=False):
        yield


def shapes(module):
    return {key: list(value.shape) for key, value in module.state_dict().items()}


def clip(case):
    return CLIPModel(CLIPConfig(**facts(case)["clip_config"]))


def counted(known):
    """The shapes of a list, which counts them."""
    keys = known["keys"]
    assert len(keys) == known["count"]
    assert sum(torch.Size(shape).numel() for shape in keys.values()) == known["numel"]
    return keys


@reads("lists", "keys_hpsv2_vit_h14")
def test_of_hpsv2(nothing_drawn, vectors):
    found = shapes(open_clip.CLIP(**open_clip.get_model_config("ViT-H-14")))
    assert found == counted(vectors["keys_hpsv2_vit_h14"])


@reads("lists", "keys_pickscore_clip_h14")
def test_of_pickscore(nothing_drawn, vectors):
    known = vectors["keys_pickscore_clip_h14"]
    assert shapes(clip("full_pickscore")) == counted(known)
    assert shapes(CLIPModel(CLIPConfig(**known["config"]))) == counted(known)


@reads("lists", "keys_aes_clip_l14")
def test_of_aes(nothing_drawn, vectors):
    known = counted(vectors["keys_aes_clip_l14"])
    assert shapes(clip("full_aes")) == known
    tower = shapes(CLIPVisionModelWithProjection(CLIPVisionConfig(**facts("full_aes")["clip_config"]["vision_config"])))
    assert tower.items() <= known.items()
    assert {key.split(".")[0] for key in known.keys() - tower.keys()} == {
        "logit_scale",
        "text_model",
        "text_projection",
    }


@reads("lists", "keys_imagereward_full", "keys_imagereward_to_transformers")
def test_of_imagereward(nothing_drawn, vectors):
    modules = convert(counted(vectors["keys_imagereward_full"]))
    assert modules["vision"] == shapes(BlipVisionModel(BlipVisionConfig(**VISION)))
    assert modules["text"] == shapes(BlipTextModel(BlipTextConfig(**TEXT), add_pooling_layer=False))
    assert modules["head"] == shapes(Head([768, 1024, 128, 64, 16, 1]))
    known = vectors["keys_imagereward_to_transformers"]
    assert (known["vision_config"], known["text_config"]) == (VISION, TEXT)


def as_transformers(state, known):
    """The weights of an open_clip model under the names of transformers."""
    found = {}
    for key, value in state.items():
        names, operation = known[key]["hf"], known[key]["op"]
        parts = value.chunk(3) if operation.startswith("split3") else [value.T if operation == "transpose" else value]
        found |= dict(zip([names] if isinstance(names, str) else names, parts, strict=True))
    return found


@reads("lists", "keys_openclip_to_transformers_clip_h14", "keys_hpsv2_vit_h14", "keys_pickscore_clip_h14")
def test_open_clip_and_transformers_hold_the_same_network(vectors):
    known = vectors["keys_openclip_to_transformers_clip_h14"]["map"]
    state = {key: torch.empty(shape, device="meta") for key, shape in vectors["keys_hpsv2_vit_h14"]["keys"].items()}
    assert known.keys() == state.keys()
    found = {key: list(value.shape) for key, value in as_transformers(state, known).items()}
    assert found == vectors["keys_pickscore_clip_h14"]["keys"]


@pytest.mark.filterwarnings("ignore:HPSv2.1 reads 77 tokens")
@reads("lists", "keys_openclip_to_transformers_clip_h14")
def test_and_a_small_one_sees_and_reads_the_same_in_both(vectors):
    case = facts("hpsv2_tiny")
    ours, known = hpsv2(), vectors["keys_openclip_to_transformers_clip_h14"]["map"]
    theirs = CLIPModel(clip_config(case["model_cfg"])).eval()
    theirs.load_state_dict(as_transformers(ours.clip.state_dict(), known), assign=True)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = F.normalize(theirs.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    torch.testing.assert_close(images, ours.clip.encode_image(pixels, normalize=True), atol=1e-5, rtol=0)
    tokens = ours.tokenizer(case["prompts"])
    texts = F.normalize(theirs.get_text_features(input_ids=tokens).pooler_output, dim=-1)
    torch.testing.assert_close(texts, ours.clip.encode_text(tokens, normalize=True), atol=1e-5, rtol=0)


def clip_config(model: dict[str, Any]) -> CLIPConfig:
    """The architecture of an open_clip model in the words of transformers."""
    vision, text = model["vision_cfg"], model["text_cfg"]

    def tower(width: int, layers: int, heads: int) -> dict[str, Any]:
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
        return sizes | {"num_attention_heads": heads, "hidden_act": "gelu", "projection_dim": model["embed_dim"]}

    vision_config = tower(vision["width"], vision["layers"], vision["width"] // vision["head_width"])
    vision_config |= {"image_size": vision["image_size"], "patch_size": vision["patch_size"]}
    text_config = tower(text["width"], text["layers"], text["heads"])
    text_config |= {"vocab_size": text["vocab_size"], "max_position_embeddings": text["context_length"]}
    text_config |= {"bos_token_id": 49406, "eos_token_id": 49407}
    return CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=model["embed_dim"])
