"""Files in VideoCrafter's official layout: read strictly, written, and refused in one sentence."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from safetensors.torch import load_file, save_file

from rlr.chain import Chain
from rlr.io.weights import blank
from rlr.models import Architecture, DiffusionModel, Frozen, Variant, VideoCrafter
from rlr.models.videocrafter.buffers import write_buffers
from rlr.models.videocrafter.checkpoint import official_state
from rlr.samplers import DDIM
from tests.models.random_vc import small, write_random_vc
from tests.models.vectors import keys, load

PUBLISHED = {"t2v_512_v2.0": Variant.v2_512, "t2v_512_v1.0": Variant.v1_512, "t2v_1024_v1.0": Variant.v1_1024}


def estimate(model: VideoCrafter, prompt: str = "a red circle") -> torch.Tensor:
    x = torch.randn(1, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.denoise(x, 500, model.encode([prompt]))


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_weight_of_the_official_files_has_its_place(name: str) -> None:
    architecture = PUBLISHED[name].value
    networks = {part: blank(make).state_dict() for part, make in architecture.makers.items()}
    found = official_state(networks, architecture) | write_buffers(architecture)
    assert {key: list(weight.shape) for key, weight in found.items()} == keys()[name]


def test_the_official_file_has_2039_weights() -> None:
    assert len(keys()["t2v_512_v2.0"]) == 2039


def test_tables_of_the_schedule_are_theirs() -> None:
    buffers = write_buffers(Architecture())
    theirs = load("pipeline_v2_tiny").within("weights.")
    assert len(buffers) == 13
    for name, table in buffers.items():
        torch.testing.assert_close(table, theirs[name], rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("layout", ["bare", "state_dict", "deepspeed", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_layout_and_type_of_file_is_read(
    random_vc: Path, tmp_path: Path, layout: str, dtype: torch.dtype
) -> None:
    state = load_file(random_vc / "model.safetensors")
    state = {name: weight.to(dtype) if weight.dtype == torch.float16 else weight for name, weight in state.items()}
    for file in ("config.json", "merges.txt.gz"):
        (tmp_path / file).write_bytes((random_vc / file).read_bytes())
    if layout == "safetensors":
        save_file(state, tmp_path / "model.safetensors")
    else:
        wrapped: dict[str, Any] = {
            "bare": state,
            "state_dict": {"state_dict": state, "global_step": 7},
            "deepspeed": {"module": {f"_forward_module.{name}": weight for name, weight in state.items()}},
        }
        torch.save(wrapped[layout], tmp_path / "model.ckpt")
    model, expected = (VideoCrafter(str(path), trainable=Frozen()) for path in (tmp_path, random_vc))
    assert torch.equal(estimate(model), estimate(expected))


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_type_is_that_asked_for(random_vc: Path, dtype: str) -> None:
    model = VideoCrafter(str(random_vc), dtype=dtype)
    wanted = getattr(torch, dtype)
    assert {w.dtype for w in model.parameters() if not w.requires_grad} == {wanted}
    assert {w.dtype for w in model.trainable.values()} == {torch.promote_types(wanted, torch.float32)}
    assert estimate(model).dtype == torch.float32
    assert model.decode(torch.zeros(1, *model.latent_shape(model.size))).dtype == torch.float32


def test_the_global_generator_stays(random_vc: Path) -> None:
    before = torch.get_rng_state()
    VideoCrafter(str(random_vc))
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_lie_where_those_of_any_process_do(random_vc: Path) -> None:
    assert all(weight.data_ptr() % 64 == 0 for weight in VideoCrafter(str(random_vc), trainable=Frozen()).parameters())


def alter(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, target / "model.safetensors")
    for file in ("config.json", "merges.txt.gz"):
        (target / file).write_bytes((folder / file).read_bytes())
    return str(target)


UNET = "model.diffusion_model."


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda state: state.pop("scale_arr"), r"scale_arr is missing \(1 such\)"),
        (lambda state: state.pop(f"{UNET}init_attn.0.proj_in.weight"), r"init_attn\.0\.proj_in\.weight is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), r"extra is foreign \(1 such\)"),
        (lambda state: state.update({f"{UNET}out.2.bias": torch.zeros(7)}), r"out\.2\.bias has another shape"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(
    random_vc: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], fact: str
) -> None:
    with pytest.raises(ValueError, match=rf"does not fit the VideoCrafter that was asked for: .*{fact}.*; set the"):
        VideoCrafter(alter(random_vc, tmp_path, change))


def test_another_variant_is_refused(random_vc: Path, tmp_path: Path) -> None:
    still = replace(small(), unet=replace(small().unet, temporal_conv=False))
    with pytest.raises(ValueError, match=r"temopral_conv.* is foreign .*or its variant"):
        VideoCrafter(str(random_vc), still)
    # without a file that says otherwise, the sizes are VideoCrafter2's
    lonely = tmp_path / "model.safetensors"
    lonely.write_bytes((random_vc / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="has another shape"):
        VideoCrafter(str(lonely))


@pytest.mark.parametrize("name", ["v1_512", "v1_1024"])
def test_a_model_of_the_first_version_samples(tmp_path: Path, name: str) -> None:
    published, architecture = Variant[name].value, small(parameterization="eps")
    flags = {key: getattr(published.unet, key) for key in ("temporal_conv", "use_relative_position", "fps_cond")}
    unet = replace(architecture.unet, temporal_length=2, **flags)
    architecture = replace(architecture, unet=unet, scale_b=published.scale_b, fix_scale_bug=published.fix_scale_bug)
    model = VideoCrafter(str(write_random_vc(tmp_path, architecture)))
    chain = Chain(model, DDIM(4))
    trajectory = chain.sample(chain.encode(["a red circle"]), chain.draw([0]))
    assert model.decode(trajectory.states[0]).shape == (1, 4, 3, 16, 16)
    assert chain.grid.scales is not None
    assert min(chain.grid.scales) == pytest.approx(1 if name == "v1_512" else 0.3)


@pytest.mark.parametrize("source", ["/nowhere/model.ckpt", "nobody/nothing"])
def test_what_is_nowhere_is_named(source: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"model\.ckpt was not found in '{source}' \(.*\); set the path"):
        VideoCrafter(source)


def test_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="holds no state dict"):
        VideoCrafter(str(tmp_path))
    (tmp_path / "model.ckpt").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is a text file that begins with"):
        VideoCrafter(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("{", "is cut off after 1 bytes"),
        ('{"channels": 3}', "does not describe a VideoCrafter .*channels"),
        ('{"unet": {"width": 3}}', "does not describe a VideoCrafter .*width"),
        ('{"unet": 3}', "does not describe a VideoCrafter"),
        ("[]", "does not describe a VideoCrafter"),
        ('{"parameterization": "score"}', "parameterization is one of eps, v, x0, .* parameterization='score'"),
        ('{"spacing": "linspace"}', "spacing is one of uniform, trailing, .* spacing='linspace'"),
    ],
)
def test_a_wrong_description_is_one_sentence(random_vc: Path, tmp_path: Path, content: str, fact: str) -> None:
    path = alter(random_vc, tmp_path, lambda state: None)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=fact):
        VideoCrafter(path)


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"size": (18, 16)}, "a video of this VideoCrafter must be positive multiples of 4 pixels, and 18 x 16 are"),
        ({"size": (0, 16)}, "and 0 x 16 are not"),
        ({"fps": 0}, r"fps must lie in \[1, 60\], and 0 does not"),
        ({"fps": 61}, r"fps must lie in \[1, 60\], and 61 does not"),
        ({"frames": 0}, "at least one frame, and got frames=0"),
        ({"decode_chunk": 0}, "decode_chunk is a number of frames from 1 on"),
    ],
)
def test_bad_settings_are_one_sentence(random_vc: Path, options: dict[str, Any], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        VideoCrafter(str(random_vc), **options)


def test_full_size_sides_are_multiples_of_64() -> None:
    assert {variant.value.multiple for variant in Variant} == {64}


def test_settings_take_the_place_of_the_defaults(random_vc: Path) -> None:
    model = VideoCrafter(str(random_vc), trainable=Frozen(), frames=2, size=(24, 32), fps=12, playback=6)
    assert (model.latent_shape(model.size), model.size.frames, model.size.fps) == ((4, 2, 12, 16), 2, 6)
    assert model.encode(["a", "b"]).tensors["fps"].tolist() == [12, 12]
    assert model.decode(torch.zeros(1, *model.latent_shape(model.size))).shape == (1, 2, 3, 24, 32)


def test_a_tokenizer_of_another_vocabulary_is_refused(random_vc: Path, tmp_path: Path) -> None:
    path = alter(random_vc, tmp_path, lambda state: None)
    (tmp_path / "merges.txt.gz").unlink()
    with pytest.raises(ValueError, match="the tokenizer has 49408 tokens and the text tower embeddings of"):
        VideoCrafter(path)


def test_a_config_names_a_variant_or_describes_one(random_vc: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=DiffusionModel)
    named = parser.parse_args(["--model=VideoCrafter", "--model.variant=v1_1024"])
    assert named.model.init_args.variant is Variant.v1_1024
    described = ["--model=VideoCrafter", f"--model.path={random_vc}", f"--model.variant={json.dumps(asdict(small()))}"]
    model = parser.instantiate_classes(parser.parse_args([*described, "--model.size=[24, 16]"])).model
    assert model.latent_shape(model.size) == (4, 4, 12, 8)
    assert torch.equal(estimate(model), estimate(VideoCrafter(str(random_vc), size=(24, 16))))


def test_a_description_is_read_as_it_was_written(tmp_path: Path) -> None:
    for variant in Variant:
        variant.value.write(tmp_path / "config.json")
        assert Architecture.read(tmp_path / "config.json") == variant.value
    (tmp_path / "config.json").write_text(json.dumps({"frames": 8}))
    assert Architecture.read(tmp_path / "config.json") == replace(Variant.v2_512.value, frames=8)


def test_a_checkpoint_keeps_its_own_schedule(random_vc: Path, tmp_path: Path) -> None:
    model = VideoCrafter(
        alter(random_vc, tmp_path, lambda state: state["alphas_cumprod"].mul_(0.5)), trainable=Frozen()
    )
    abar = 0.5 * write_buffers(small())["alphas_cumprod"][1].item()
    assert model.noise_schedule.levels(1)[1] == pytest.approx((1 - abar) ** 0.5)
