"""Every weight of every part is in the file, every file is whole, and another kind of model is refused by name."""

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip import SimpleTokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from rlr.models import Frozen, Size, StableDiffusion, StableDiffusion3, VideoCrafter
from rlr.models.folder import _check_merges
from rlr.models.integrity import check_file

Folder = Callable[..., Path]
State = dict[str, Tensor]
NETWORKS = ["unet", "vae", "text_encoder"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.fixture
def copied(random_sd: Folder, tmp_path: Path) -> Path:
    return shutil.copytree(random_sd(), tmp_path / "sd")


def alter(folder: Path, part: str, change: Callable[[State], State]) -> Path:
    (file,) = (folder / part).glob("*.safetensors")
    save_file({name: weight.clone() for name, weight in change(load_file(file)).items()}, file, {"format": "pt"})
    return file


def without(text: str) -> Callable[[State], State]:
    return lambda state: {name: weight for name, weight in state.items() if text not in name}


def estimate(model: StableDiffusion) -> Tensor:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.decode(model.denoise(x, 400, model.encode(["a red circle"])))


@pytest.mark.parametrize(
    ("part", "removed", "count"),
    [
        ("unet", "conv_in.bias", 1),
        ("unet", "mid_block.resnets.0", 10),
        ("vae", "decoder.conv_in.weight", 1),
        ("vae", "encoder.", 34),
        ("text_encoder", "token_embedding", 1),
        ("text_encoder", "layers.1.", 16),
        ("text_encoder", "final_layer_norm.weight", 1),
    ],
)
def test_a_file_that_lacks_weights_is_refused(copied: Path, part: str, removed: str, count: int) -> None:
    names = sorted(name for name in load_file(next((copied / part).glob("*.safetensors"))) if removed in name)
    file = alter(copied, part, without(removed))
    with pytest.raises(ValueError, match=r"lacks weights of the .* in all") as caught:
        StableDiffusion(str(copied))
    assert f"{file} lacks weights of the " in str(caught.value)
    assert f": {names[0]!r} ({len(names)} in all)" in str(caught.value)
    assert removed in ("mid_block.resnets.0", "encoder.") or len(names) == count


@pytest.mark.parametrize("part", NETWORKS)
def test_names_of_a_compiled_network_are_refused(copied: Path, part: str) -> None:
    file = alter(copied, part, lambda state: {f"_orig_mod.{name}": weight for name, weight in state.items()})
    with pytest.raises(ValueError, match=r"begin with '_orig_mod\.', as torch\.compile writes them; save") as caught:
        StableDiffusion(str(copied))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("part", NETWORKS)
def test_foreign_weights_are_named(copied: Path, part: str) -> None:
    expected = estimate(StableDiffusion(str(copied), Frozen()))
    alter(copied, part, lambda state: state | {"foreign.weight": torch.ones(2)})
    with pytest.warns(UserWarning, match="holds 1 weights that the .* does not have .*'foreign.weight'"):
        model = StableDiffusion(str(copied), Frozen())
    assert torch.equal(estimate(model), expected)


@pytest.mark.parametrize("part", NETWORKS)
def test_a_weight_of_another_shape_is_named(copied: Path, part: str) -> None:
    name = {"unet": "conv_in.bias", "vae": "decoder.conv_in.bias", "text_encoder": "final_layer_norm.bias"}[part]
    alter(copied, part, lambda state: {key: torch.ones(3) if key.endswith(name) else w for key, w in state.items()})
    with pytest.raises(ValueError, match=name):
        StableDiffusion(str(copied))


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_older_forms_of_the_text_encoder_load_alike(copied: Path, prefix: str, positions: bool) -> None:
    expected = estimate(StableDiffusion(str(copied), Frozen()))

    def older(state: State) -> State:
        renamed = {prefix + name.removeprefix("text_model."): weight for name, weight in state.items()}
        return renamed | ({f"{prefix}embeddings.position_ids": torch.arange(16)[None]} if positions else {})

    alter(copied, "text_encoder", older)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = StableDiffusion(str(copied), Frozen())
    assert torch.equal(estimate(model), expected)


@pytest.mark.parametrize(
    "part", [f"{part}/{{weights}}" for part in NETWORKS] + ["unet/config.json", "tokenizer/tokenizer.json"]
)
@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda data: POINTER, "LFS.* with `git lfs pull`"),
        (lambda data: data[: len(data) // 2], "is cut off after|is no JSON"),
        (lambda data: data[:5], "is cut off after|is no JSON"),
        (lambda data: b"", "empty.*; download it again"),
    ],
    ids=["pointer", "half", "start", "empty"],
)
def test_a_file_that_is_not_whole_is_named(
    copied: Path, part: str, change: Callable[[bytes], bytes], fact: str
) -> None:
    folder, name = part.split("/")
    file = next((copied / folder).glob("*.safetensors")) if name == "{weights}" else copied / part
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match=fact) as caught:
        StableDiffusion(str(copied))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler", "tokenizer"])
@pytest.mark.parametrize("content", ["[]", "null", '"text"', "3"])
def test_a_configuration_of_other_content_is_one_sentence(copied: Path, part: str, content: str) -> None:
    file = next((copied / part).glob("*config.json"))
    file.write_text(content)
    with pytest.raises(ValueError, match=r"is not a configuration .it holds no JSON object") as caught:
        StableDiffusion(str(copied))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"model": 3}', '{"added_tokens": [], "model": 3}'])
def test_a_tokenizer_of_other_content_is_one_sentence(copied: Path, content: str) -> None:
    (copied / "tokenizer" / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="has no readable tokenizer/"):
        StableDiffusion(str(copied))


def plain(folder: Path) -> Path:
    """Turns tokenizer.json into the two plain files of published folders, and returns the file of merges."""
    parts = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(parts["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in parts["merges"]]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    return folder / "tokenizer" / "merges.txt"


def test_merges_that_are_missing_or_cut_are_refused(copied: Path) -> None:
    """The tokenizer would read single characters in place of words."""
    merges = plain(copied)
    StableDiffusion(str(copied), Frozen())
    lines = merges.read_text().split("\n")
    merges.write_text("\n".join(lines[: len(lines) // 2]))
    with pytest.raises(ValueError, match=r"has no readable tokenizer/ .its merges lack \d+ of \d+ tokens, such as"):
        StableDiffusion(str(copied))
    merges.unlink()
    with pytest.raises(ValueError, match="has no readable tokenizer/"):
        StableDiffusion(str(copied))


def test_the_published_vocabulary_of_clip_passes() -> None:
    words = SimpleTokenizer()
    merges = sorted(words.bpe_ranks, key=words.bpe_ranks.__getitem__)
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in words.encoder.items()}
    _check_merges(CLIPTokenizer(vocab=vocabulary, merges=merges))
    with pytest.raises(OSError, match="its merges lack 10 of 49408 tokens"):
        _check_merges(CLIPTokenizer(vocab=vocabulary, merges=merges[:-10]))


def test_a_unet_of_no_stated_size_needs_one(copied: Path) -> None:
    file = copied / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": None}))
    with pytest.raises(ValueError, match="states no sample_size; set size"):
        StableDiffusion(str(copied))
    assert StableDiffusion(str(copied), size=32).size == Size(32, 32)


def test_broken_files_that_are_not_read_do_no_harm(copied: Path) -> None:
    for name in ("pytorch_model.bin", "flax_model.msgpack", "model.fp16.safetensors"):
        (copied / "text_encoder" / name).write_bytes(POINTER)
    StableDiffusion(str(copied), Frozen())


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("part", NETWORKS)
@pytest.mark.parametrize("save", [torch.save, lambda state, file: file.write_bytes(pickle.dumps(state))])
def test_a_pickled_part_runs_nothing(copied: Path, tmp_path: Path, part: str, save: Callable[..., object]) -> None:
    (file,) = (copied / part).glob("*.safetensors")
    file.unlink()
    stem = "pytorch_model" if part == "text_encoder" else "diffusion_pytorch_model"
    save({"weight": Payload(tmp_path / "ran")}, copied / part / f"{stem}.bin")
    with pytest.raises(ValueError, match=f"has no readable {part}/"):
        StableDiffusion(str(copied))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ({"in_channels": 9}, "an inpainting U-Net"),
        ({"in_channels": 8}, "an InstructPix2Pix"),
        ({"in_channels": 5}, "a depth-to-image U-Net"),
        ({"in_channels": 7}, "a U-Net of the x4 upscaler"),
        ({"in_channels": 3, "out_channels": 3}, r"another U-Net \(in_channels: 3"),
        ({"out_channels": 8}, "a U-Net with a learned variance"),
        ({"out_channels": 3}, r"another U-Net \(out_channels: 3"),
        (
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 64,
            },
            "the U-Net of an SDXL",
        ),
        ({"time_cond_proj_dim": 16}, "reads the guidance scale"),
        ({"num_class_embeds": 10}, r"an input besides the prompt \(num_class_embeds: 10"),
        (
            {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 16},
            r"an input besides the prompt \(class_embed_type: projection",
        ),
        ({"cross_attention_dim": 16}, "reads text embeddings of width 16, and text_encoder/ makes width 32"),
    ],
)
def test_another_unet_is_refused_by_name(copied: Path, other: dict[str, object], kind: str) -> None:
    config = json.loads((copied / "unet" / "config.json").read_text())
    known = {name: value for name, value in config.items() if not name.startswith("_")}
    UNet2DConditionModel(**known | other).save_pretrained(copied / "unet")
    with pytest.raises(ValueError, match=kind) as caught:
        StableDiffusion(str(copied))
    assert "unet/config.json" in str(caught.value)


@pytest.mark.parametrize("other", [{"out_channels": 4}, {"in_channels": 1}])
@pytest.mark.parametrize("family", [StableDiffusion, StableDiffusion3])
def test_an_autoencoder_of_other_colors_is_refused(
    random_sd: Folder, random_sd3: Folder, tmp_path: Path, family: type[StableDiffusion], other: dict[str, int]
) -> None:
    folder = shutil.copytree({StableDiffusion: random_sd, StableDiffusion3: random_sd3}[family](), tmp_path / "copy")
    write_autoencoder(folder, other)
    with pytest.raises(ValueError, match=rf"vae/config\.json .* 3 channels, found {next(iter(other))}: .*; take vae/"):
        family(str(folder))


def test_an_autoencoder_of_other_latents_is_refused(random_sd3: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(random_sd3(), tmp_path / "copy")
    write_autoencoder(folder, {"latent_channels": 8})
    with pytest.raises(ValueError, match=r"vae/config\.json: expected latents of 4 channels.*, found 8"):
        StableDiffusion3(str(folder))


def write_autoencoder(folder: Path, other: dict[str, int]) -> None:
    config = json.loads((folder / "vae" / "config.json").read_text())
    known = {name: value for name, value in config.items() if not name.startswith("_")}
    AutoencoderKL(**known | other).save_pretrained(folder / "vae")


def test_a_missing_part_names_the_pipeline_of_the_folder(copied: Path) -> None:
    shutil.rmtree(copied / "unet")
    (copied / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    with pytest.raises(ValueError, match=r"of a StableDiffusion3Pipeline has no readable unet/"):
        StableDiffusion(str(copied))


def test_the_shift_of_the_latents_is_added_before_decoding(copied: Path) -> None:
    plain = StableDiffusion(str(copied), Frozen())
    file = copied / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scaling_factor": 0.5, "shift_factor": 0.25}))
    shifted = StableDiffusion(str(copied), Frozen())
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = (plain.vae.decode(x / 0.5 + 0.25).sample / 2 + 0.5).clamp(0, 1)
        assert torch.equal(shifted.decode(x), expected)


def test_the_mean_of_the_latents_is_added_before_decoding(copied: Path) -> None:
    """As :class:`diffusers.StableDiffusionXLPipeline` does with the statistics of each channel."""
    plain = StableDiffusion(str(copied), Frozen())
    mean, std = [0.1, -0.2, 0.3, 0.0], [2.0, 0.5, 1.0, 3.0]
    file = copied / "vae" / "config.json"
    stated = {"scaling_factor": 0.5, "latents_mean": mean, "latents_std": std}
    file.write_text(json.dumps(json.loads(file.read_text()) | stated))
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    z = x * torch.tensor(std).view(1, 4, 1, 1) / 0.5 + torch.tensor(mean).view(1, 4, 1, 1)
    with torch.no_grad():
        expected = (plain.vae.decode(z).sample / 2 + 0.5).clamp(0, 1)
        assert torch.equal(StableDiffusion(str(copied), Frozen()).decode(x), expected)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "merges.txt.gz"])
@pytest.mark.parametrize(
    ("change", "fact"),
    [(lambda data: POINTER, "LFS"), (lambda data: data[: len(data) // 2], "damaged|cut off")],
    ids=["pointer", "half"],
)
def test_a_videocrafter_file_that_is_not_whole_is_named(
    random_vc: Path, tmp_path: Path, name: str, change: Callable[[bytes], bytes], fact: str
) -> None:
    folder = shutil.copytree(random_vc, tmp_path / "vc")
    file = folder / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match=fact) as caught:
        VideoCrafter(str(folder))
    assert str(file) in str(caught.value)


def test_whole_files_pass(random_sd: Folder, random_vc: Path) -> None:
    files = [file for folder in (random_sd(), random_vc) for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 9
    for file in files:
        check_file(file)
