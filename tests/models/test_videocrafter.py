"""VideoCrafter's parts against recorded outputs of its authors' code, at the tolerances that were measured for them."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import UNet3DConditionModel
from torch import Tensor, nn

from rlr.chain import Chain
from rlr.io.weights import blank, fill
from rlr.models import Frozen, Guidance, LoRA, VideoCrafter
from rlr.models.layout import vae_layout
from rlr.models.videocrafter.keys import unet_layout
from rlr.models.videocrafter.network import UNetConfig, build_unet, call
from rlr.models.videocrafter.positions import RelativeAttention
from rlr.models.videocrafter.recompute import recompute
from rlr.samplers import DDIM
from tests.models.vectors import Vectors, architecture, load, unet_config, write_checkpoint

UNET, VAE, GRADIENT, TEXT, VIDEO = 3e-5, 2e-5, 5e-4, 1e-5, 1e-4
"""Absolute tolerances."""
CASES = ("base", "long", "frame1", "nofps", "intfps")


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return load("unet_v2_tiny")


@pytest.fixture(scope="module")
def unet(vectors: Vectors) -> UNet3DConditionModel:
    config = unet_config(vectors.config["unet_config"])
    state = unet_layout(config).to_ours(vectors.within("weights."))
    return fill(blank(lambda: build_unet(config)), state, torch.float32)


def answer(unet: UNet3DConditionModel, vectors: Vectors, case: str, **given: Tensor) -> Tensor:
    inputs = vectors.within(f"inputs.{case}.") | given
    rates = {"nofps": 16, "intfps": 12}
    fps = inputs["fps"] if "fps" in inputs else torch.full((len(inputs["x"]),), rates[case])
    return call(unet, inputs["x"], inputs["timesteps"], inputs["context"], fps)


@pytest.mark.parametrize("case", CASES)
def test_the_denoiser_is_theirs(unet: UNet3DConditionModel, vectors: Vectors, case: str) -> None:
    with torch.no_grad():
        y = answer(unet, vectors, case)
    torch.testing.assert_close(y, vectors[f"outputs.{case}.y"], rtol=0, atol=UNET)


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_its_gradients_are_theirs(unet: UNet3DConditionModel, vectors: Vectors, again: bool) -> None:
    network = copy.deepcopy(unet)
    if again:
        recompute(network)
    given = {name: vectors[f"inputs.base.{name}"].clone().requires_grad_() for name in ("x", "context")}
    (answer(network, vectors, "base", **given) * vectors["inputs.base.cotangent"]).sum().backward()
    for name, tensor in given.items():
        torch.testing.assert_close(tensor.grad, vectors[f"outputs.base.grad_{name}"], rtol=0, atol=GRADIENT)


@pytest.mark.parametrize(
    ("module", "attribute", "value"),
    [
        ("down_blocks.0.resnets.0.norm1", "eps", 1e-6),
        ("down_blocks.0.temp_attentions.0.norm", "eps", 1e-5),
        ("down_blocks.1.temp_convs.0.conv1.0", "eps", 1e-6),
        ("time_proj", "flip_sin_to_cos", False),
    ],
)
def test_a_wrong_constant_is_seen(
    unet: UNet3DConditionModel, vectors: Vectors, module: str, attribute: str, value: object
) -> None:
    network = copy.deepcopy(unet)
    setattr(network.get_submodule(module), attribute, value)
    with torch.no_grad():
        error = (answer(network, vectors, "base") - vectors["outputs.base.y"]).abs().max()
    assert error > 2 * UNET


def test_the_frame_rate_matters(unet: UNet3DConditionModel, vectors: Vectors) -> None:
    with torch.no_grad():
        error = answer(unet, vectors, "base", fps=torch.tensor([16, 16])) - vectors["outputs.base.y"]
    assert error.abs().amax((1, 2, 3, 4)).min() > 0.05


def test_recomputed_layers_keep_less(unet: UNet3DConditionModel, vectors: Vectors) -> None:
    def kept(network: nn.Module) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = vectors["inputs.base.x"].clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            alive = answer(network, vectors, "base", x=x)
        del alive
        return sum(sizes.values())

    again = copy.deepcopy(unet)
    recompute(again)
    assert kept(again) < kept(unet) / 3
    assert again.state_dict().keys() == unet.state_dict().keys()


def test_the_autoencoder_is_theirs() -> None:
    made, vectors = architecture(), load("vae_tiny")
    theirs = load("pipeline_v2_tiny").within("weights.first_stage_model.")
    state = vae_layout(len(made.vae.ch_mult), made.vae.num_res_blocks).to_ours(theirs)
    vae = fill(blank(made.build_vae), state, torch.float32)
    with torch.no_grad():
        encoded = vae.encode(vectors["inputs.img"]).latent_dist
        decoded = vae.decode(vectors["inputs.z"]).sample
    torch.testing.assert_close(encoded.parameters, vectors["outputs.moments"], rtol=0, atol=VAE)
    scaled = made.scale_factor * (encoded.mean + encoded.std * vectors["inputs.noise"])
    torch.testing.assert_close(scaled, vectors["outputs.scaled_sample"], rtol=0, atol=VAE)
    torch.testing.assert_close(decoded, vectors["outputs.dec"], rtol=0, atol=VAE)


def test_relative_positions_are_theirs() -> None:
    """One temporal transformer of VideoCrafter1."""
    vectors = load("attention_v1_tiny")
    config = unet_config(vectors.config["unet_config"])
    assert (config.fps_cond, config.temporal_conv, config.use_relative_position) == (False, False, True)
    transformer = build_unet(config).down_blocks[0].temp_attentions[0].eval()
    ours, theirs = "down_blocks.0.temp_attentions.0.", "weights.input_blocks.1.2."
    named = {f"input_blocks.1.2.{name}": weight for name, weight in vectors.within(theirs).items()}
    state = unet_layout(config).to_ours(named)
    transformer.load_state_dict({name.removeprefix(ours): weight.float() for name, weight in state.items()})
    x, expected = (vectors[f"debug.nofps.input_blocks.1.{k}"] for k in (1, 2))

    def error() -> float:
        with torch.no_grad():
            y = transformer(x, num_frames=4, return_dict=False)[0]
        return (y - expected[0].transpose(0, 1)).abs().max().item()

    assert error() < UNET
    table = transformer.transformer_blocks[0].attn1.processor.relative_position_k.embeddings_table
    table.data = table.data.flip(0)
    assert error() > 1000 * UNET


def test_positions_beyond_the_table_are_those_at_its_ends() -> None:
    table = RelativeAttention(2, 3).relative_position_k
    rows = table(6)
    assert rows.shape == (6, 6, 3)
    assert torch.equal(rows[0, 5], table.embeddings_table[4])
    assert torch.equal(rows[5, 0], table.embeddings_table[0])
    assert torch.equal(rows[3, 3], table.embeddings_table[2])
    assert torch.equal(rows[2, 3], table.embeddings_table[3])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoCrafter:
    return VideoCrafter(str(write_checkpoint(tmp_path_factory.mktemp("vc"))), trainable=Frozen())


def test_tokens_are_theirs(model: VideoCrafter) -> None:
    pipeline = load("pipeline_v2_tiny")
    prompts = pipeline.config["token_test_prompts"]
    tokens = torch.cat([model.text.tokens(prompt) for prompt in prompts])
    assert torch.equal(tokens, pipeline["inputs.token_test"])
    # padded by 0, and the end is kept where a text is cut
    assert tokens[0].tolist() == [49406, 49407] + 75 * [0]
    assert {model.text.count(prompt) > 77 for prompt in prompts} == {True, False}
    assert all(tokens[k, -1] == 49407 for k, prompt in enumerate(prompts) if model.text.count(prompt) > 77)


def test_text_embeddings_are_theirs(model: VideoCrafter) -> None:
    pipeline = load("pipeline_v2_tiny")
    prompts = pipeline.config["prompts"]
    assert torch.equal(torch.cat([model.text.tokens(prompt) for prompt in prompts]), pipeline["inputs.tokens"])
    expected = pipeline["outputs.text_embedding"]
    torch.testing.assert_close(model.encode(prompts).tensors["text"], expected, rtol=0, atol=TEXT)
    torch.testing.assert_close(
        model.text(["", ""]).tensors["text"], pipeline["outputs.uncond_embedding"], rtol=0, atol=TEXT
    )


def test_prompts_become_their_frames(model: VideoCrafter) -> None:
    pipeline = load("pipeline_v2_tiny")
    config = pipeline.config
    guided = Guidance(model, config["cfg_scale"])
    chain = Chain(guided, DDIM(config["S"], config["eta"]))
    noises = torch.cat([pipeline["inputs.noise"].flip(0), pipeline["inputs.x_T"][None]])
    trajectory = chain.sample(chain.encode(config["prompts"]), noises)
    expected = pipeline["outputs.x"].flip(0)
    assert (trajectory.states - expected).abs().max() < 5e-5 * expected.abs().max()
    frames = guided.decode(trajectory.states[0])
    video = pipeline["outputs.video"].transpose(1, 2)
    torch.testing.assert_close(frames, (video / 2 + 0.5).clamp(0, 1), rtol=0, atol=VIDEO)
    theirs = pipeline["outputs.frames_uint8"].transpose(1, 2)
    assert ((frames * 255).to(torch.uint8).int() - theirs.int()).abs().max() <= 1


def test_frames_are_decoded_alike_one_by_one_together_and_apart(model: VideoCrafter) -> None:
    x = load("pipeline_v2_tiny")["outputs.x"][-1].clone().requires_grad_()
    asked: list[int] = []
    hook = model.vae.decoder.register_forward_hook(lambda module, args, output: asked.append(len(output)))
    try:
        results = {}
        for chunk in (1, 3, None):
            model.decode_chunk = chunk
            pixels = model.decode(x)
            results[chunk] = (pixels.detach(), torch.autograd.grad(pixels.square().sum(), x)[0])
        for chunk in (1, 3):
            for one, other in zip(results[chunk], results[None], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        asked.clear()
        some = model.decode(x, [3, 0])
        assert asked == [4]
    finally:
        hook.remove()
        model.decode_chunk = 1
    assert some.shape == (2, 2, 3, 16, 16)
    torch.testing.assert_close(some, results[None][0][:, [3, 0]], rtol=1e-4, atol=1e-5)
    # and no gradient reaches what was not asked for
    gradient = torch.autograd.grad(some.sum(), x)[0]
    assert gradient[:, :, 1:3].abs().max() == 0
    assert gradient[:, :, [0, 3]].abs().amax((0, 1, 3, 4)).min() > 0


def test_dropout_is_off_in_rollout_and_replay(random_vc: Path) -> None:
    model = VideoCrafter(str(random_vc), checkpointing=True).train()
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    assert len(dropouts) > 10
    assert not any(module.training for module in model.modules())
    chain = Chain(model, DDIM(4))
    trajectory = chain.sample(chain.encode(["a cat"]), chain.draw([0]))
    replayed = chain.replay(trajectory, 2, 0)
    assert torch.equal(replayed.sample(trajectory.noises[0]), trajectory.states[0])
    replayed.mean.sum().backward()
    # LoRA's second factors begin at zero, and let nothing through to the first
    assert all(w.grad.abs().max() > 0 for name, w in model.trainable.items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("pattern", "temporal"), [(r"temp_attentions|transformer_in", True), (r"\.attentions\.", False)]
)
def test_a_pattern_chooses_temporal_or_spatial_attention(random_vc: Path, pattern: str, temporal: bool) -> None:
    everything = VideoCrafter(str(random_vc)).trainable
    some = VideoCrafter(str(random_vc), trainable=LoRA(pattern=pattern)).trainable
    expected = {name for name in everything if ("temp_attentions" in name or "transformer_in" in name) == temporal}
    assert some.keys() == expected
    assert 0 < len(some) < len(everything)


def test_a_pattern_that_is_nowhere_is_named(random_vc: Path) -> None:
    with pytest.raises(ValueError, match="pattern 'temporal' is found in no linear layer's name of UNet3D"):
        VideoCrafter(str(random_vc), trainable=LoRA(pattern="temporal"))


def test_a_config_is_of_its_authors_names() -> None:
    assert UNetConfig().attended == (True, True, True, False)
