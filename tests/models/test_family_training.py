"""Laws of every family of latent diffusion, on small random weights: it trains in little memory, and its exports are read."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from rlr import align
from rlr.chain import Chain
from rlr.data import Prompts
from rlr.estimators import (
    AWM,
    DDPO,
    GRPO,
    RAM,
    RLR,
    AlignProp,
    DiffusionNFT,
    DirectAlign,
    DRaFTLV,
    DRTune,
    Estimator,
    FirstOrder,
    ForwardProcess,
    HalfOrderRLR,
    HybridPolicyGradient,
    LeapAlign,
    LookAhead,
    OfficialRLR,
    ReFL,
    published,
)
from rlr.models import FullWeights, LoRA
from rlr.models.export import ComfyUI, DiffusersLoRA, Exporter, Kohya, Merged, PeftAdapter, SingleFile
from rlr.rewards import Brightness, FrameReward
from tests.models.families import FAMILIES, FIRST, Member, covering

Find = Callable[[str], Member]
every = pytest.mark.parametrize("name", FAMILIES)
one_a_class = pytest.mark.parametrize("name", FIRST)
# a FLUX.2-dev is trained as a klein is
trained = pytest.mark.parametrize("name", [name for name in FAMILIES if name != "dev"])


def gradients(found: Member, model: Any) -> dict[str, torch.Tensor]:
    """Returns pixels of replayed steps, and the gradients of the trained weights through steps and decoder."""
    chain = Chain(found.family.guided(model, 3.0), found.family.noisy(2))
    # some models have an encoder of what is in quotes
    trajectory = chain.sample(chain.encode(["a", 'red "b"']), chain.draw([1, 2]))
    pixels = model.decode(chain.replay(trajectory, 2, 0).sample(trajectory.noises[0]))
    pixels.square().sum().backward()
    grads = {name: weight.grad for name, weight in model.trainable.items() if weight.grad is not None}
    return {"pixels": pixels.detach(), **grads}


@trained
def test_what_saves_memory_changes_rounding_alone(member: Find, name: str) -> None:
    found = member(name)
    saving = found.build(trainable=LoRA(2, alpha=3.0), checkpointing=True, vae_slicing=True)
    counts = []
    with found.lora() as plain:
        for one, other in zip(plain.trainable.values(), saving.trainable.values(), strict=True):
            other.data = one.data.clone()
        results = []
        for model in (plain, saving):
            calls: list[str] = []
            inner = next(iter(model.networks().values()))
            inner = inner.mid_block.attentions[0] if hasattr(inner, "mid_block") else inner
            blocks = next(
                getattr(inner, kind) for kind in ("transformer_blocks", "blocks", "layers") if hasattr(inner, kind)
            )
            hooks = [
                module.register_forward_pre_hook(lambda *args, kind=kind, calls=calls: calls.append(kind))
                for kind, module in (("block", blocks[0]), ("decoder", model.vae.decoder))
            ]
            results.append(gradients(found, model))
            counts.append({kind: calls.count(kind) for kind in ("block", "decoder")})
            for hook in hooks:
                hook.remove()
        once, again = results
    assert all(counts[1][kind] > counts[0][kind] > 0 for kind in counts[0])
    assert once.keys() == again.keys()
    assert sum(bool(gradient.abs().max() > 0) for gradient in once.values()) > len(plain.trainable) / 2
    largest = max(gradient.abs().max().item() for key, gradient in once.items() if key != "pixels")
    for key, value in once.items():
        torch.testing.assert_close(again[key], value, rtol=0, atol=1e-5 * (1 if key == "pixels" else largest))


@every
def test_a_lora_is_off_at_first(member: Find, name: str) -> None:
    found = member(name)
    base, time = found.base, found.base.schedule(found.base.size).grid(4).times[2]
    x, condition = torch.ones(1, *base.latent_shape(base.size)), base.encode(["a"])
    with torch.no_grad():
        expected = base.denoise(x, time, condition)
        with found.lora(0.0) as model:
            assert torch.equal(model.denoise(x, time, condition), expected)
        with found.lora() as model:
            assert (model.denoise(x, time, condition) - expected).abs().max() > 1e-3
            with model.reference():
                assert torch.equal(model.denoise(x, time, condition), expected)


@trained
def test_a_half_network_has_a_lora_of_the_family_in_float32(member: Find, name: str) -> None:
    found = member(name)
    model = found.build(trainable=None, dtype="bfloat16")
    assert (model.adapter.rank, model.adapter.alpha) == found.family.rank
    assert len({weight.split(".lora_")[0] for weight in model.trainable}) == found.family.layers
    assert {weight.dtype for weight in model.trainable.values()} == {torch.float32}
    whole = {word for part in model.modules() for word in getattr(part, "_keep_in_fp32_modules", None) or ()}
    frozen = {name: weight for name, weight in model.named_parameters() if not weight.requires_grad}
    assert all(w.dtype == torch.bfloat16 for name, w in frozen.items() if not any(word in name for word in whole))
    chain = Chain(model, found.family.noisy(2))
    trajectory = chain.sample(chain.encode(["a", "red"]), chain.draw([1, 2]))
    assert trajectory.states.dtype == model.decode(trajectory.states[0]).dtype == torch.float32
    chain.replay(trajectory, 2, 1).log_prob(trajectory.states[1]).sum().backward()
    assert any(weight.grad.abs().max() > 0 for weight in model.trainable.values() if weight.grad is not None)


@one_a_class
def test_all_weights_are_trained(member: Find, name: str) -> None:
    found = member(name)
    model = found.build(trainable=FullWeights())
    assert sum(w.numel() for w in model.trainable.values()) == sum(w.numel() for w in model.network.parameters())
    gradients(found, model)
    reached = [weight.grad is not None and weight.grad.abs().max() > 0 for weight in model.trainable.values()]
    assert sum(reached) > 0.8 * len(reached)


def by_lora(found: Member, folder: Path) -> Any:
    pipeline = found.copied(*found.base.networks())
    first, *others = sorted(folder.glob("*.safetensors"))
    if not hasattr(pipeline, "load_lora_weights"):
        pipeline.transformer.load_lora_adapter(folder, prefix="transformer", weight_name=first.name)
        return pipeline
    pipeline.load_lora_weights(folder, weight_name=first.name)
    for other in others:
        pipeline.load_lora_weights(folder, weight_name=other.name, load_into_transformer_2=True)
    return pipeline


def by_peft(found: Member, folder: Path) -> Any:
    first, *others = found.base.networks()
    pipeline = found.copied(first, *others)
    PeftModel.from_pretrained(getattr(pipeline, first), str(folder))
    for other in others:
        PeftModel.from_pretrained(getattr(pipeline, other), str(folder / other))
    return pipeline


EXPORTS: dict[str, tuple[Exporter, Callable[[Member, Path], Any]]] = {
    "lora": (DiffusersLoRA(), by_lora),
    "peft": (PeftAdapter(), by_peft),
    "merged": (Merged(), lambda found, folder: found.open(folder)),
    "comfyui": (ComfyUI(), by_lora),
}


@pytest.mark.parametrize(
    ("name", "format"),
    [
        *((name, "lora") for name in FAMILIES),
        *covering([name for name, family in FAMILIES.items() if not family.is_video], ["comfyui", "merged", "peft"]),
        *covering([name for name, family in FAMILIES.items() if family.is_video], ["merged", "peft"]),
    ],
)
def test_an_export_makes_the_same_samples_in_diffusers(member: Find, tmp_path: Path, name: str, format: str) -> None:
    found, (exporter, load) = member(name), EXPORTS[format]
    scale, read = found.family.cases[-1]
    size = found.family.sizes[0]
    with found.lora(0.1) as model:
        exporter.write(model, tmp_path / "out")
        samples, noise = found.sample(model, scale, read, 2, size)
    assert (found.ours(scale, read, 2)[0] - samples).abs().max() > 0.01
    again = found.theirs(noise, scale, read, 2, size, load(found, tmp_path / "out"))
    torch.testing.assert_close(again, samples, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [*FIRST, "wan_experts"])
def test_a_lora_is_the_start_of_another(member: Find, name: str, tmp_path: Path) -> None:
    found = member(name)
    with found.lora() as first:
        DiffusersLoRA().save(first, tmp_path)
        files = [str(file) for file in sorted(tmp_path.iterdir())]
        assert len(files) == len(first.networks())
        again = found.build(trainable=LoRA(start=files if len(files) > 1 else files[0]))
        x, condition = torch.ones(1, *first.latent_shape(first.size)), first.encode(["a"])
        # early and late: on either side of the boundary of two transformers
        for time in (first.schedule(first.size).grid(4).times[t] for t in (4, 1)):
            with torch.no_grad(), again.reference():
                expected = first.denoise(x, time, condition)
                torch.testing.assert_close(again.denoise(x, time, condition), expected, rtol=0, atol=1e-5)


def test_each_of_two_transformers_needs_a_start(member: Find, tmp_path: Path) -> None:
    found = member("wan_experts")
    with found.lora() as model:
        DiffusersLoRA().save(model, tmp_path)
    file = str(tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(
        ValueError, match=r"LoRA.start: expected 2 files, one for each transformer of the model, got .*ora_w"
    ):
        found.build(trainable=LoRA(start=file))


@one_a_class
@pytest.mark.parametrize("exporter", [Kohya(), SingleFile()])
def test_formats_of_stable_diffusion_alone_are_refused(
    member: Find, name: str, exporter: Exporter, tmp_path: Path
) -> None:
    with (
        member(name).lora() as model,
        pytest.raises(ValueError, match=r"writes a Stable Diffusion 1\.x or 2\.x, and the model is a "),
    ):
        exporter.write(model, tmp_path / "out")


METHODS: dict[str, Callable[[], Estimator]] = {
    "rlr": lambda: RLR(length=1),
    "half_order": lambda: HalfOrderRLR(length=1, segments=1, control=LookAhead()),
    "alignprop": lambda: AlignProp(),
    "ddpo": lambda: DDPO(num_minibatches=1),
    "grpo": lambda: GRPO(num_minibatches=1),
    "draft": lambda: FirstOrder(steps=1),
    "draft_lv": lambda: DRaFTLV(),
    "refl": lambda: ReFL(window=2),
    "drtune": lambda: DRTune(trained=2, window=2),
    "leapalign": lambda: LeapAlign(),
    "direct_align": lambda: DirectAlign(),
    "hybrid": lambda: HybridPolicyGradient(num_minibatches=1),
    "official_rlr": lambda: OfficialRLR(),
    "awm": lambda: AWM(ForwardProcess(levels=2), num_minibatches=1),
    "nft": lambda: DiffusionNFT(process=ForwardProcess(levels=2)),
    "ram": lambda: RAM(process=ForwardProcess(levels=2)),
}
"""The methods of this library, and every published one."""


def test_every_published_method_is_among_them() -> None:
    files = {file.stem for file in Path(published.__file__ or "").parent.glob("*.py")} - {"__init__", "backprop"}
    assert len(files) > 10
    assert files <= {type(method()).__module__.rpartition(".")[2] for method in METHODS.values()}


@pytest.mark.parametrize(
    ("name", "method"),
    covering(list(FAMILIES), list(METHODS), [("sd3", method) for method in ("rlr", "alignprop", "ddpo")]),
)
def test_a_method_takes_a_step(member: Find, name: str, method: str) -> None:
    found = member(name)
    reward = FrameReward(Brightness()) if found.family.is_video else Brightness()
    # GRPO compares samples of one prompt
    prompts = Prompts(train=["a red circle", "two blue squares"], batch_size=4, samples_per_prompt=2)
    with found.lora() as model, warnings.catch_warnings(action="ignore"):
        before = {key: weight.detach().clone() for key, weight in model.trainable.items()}
        sampler = found.family.noisy(3)
        align(model, reward, prompts, METHODS[method](), updates=1, accumulate=1, sampler=sampler)
        moved = [key for key, weight in model.trainable.items() if not torch.equal(weight, before[key])]
        assert len(moved) >= found.family.layers / 4
        assert all(weight.isfinite().all() for weight in model.trainable.values())


NOISE = ("rlr", "half_order", "ddpo", "grpo", "hybrid", "official_rlr")
"""The methods that need noise in the steps that they train."""
REFERENCE = ("grpo", "awm", "nft", "ram")
"""The methods that compare with the base model."""


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_cannot_train_on_is_refused_in_a_sentence(member: Find, method: str) -> None:
    found = member("sd3")
    silent = Chain(found.base, found.family.sampler(3))
    if method in NOISE:
        with pytest.raises(
            ValueError,
            match=r"needs (noise in step \d|steps with noise .*), and the sampler FlowSDE has no.* \(σ = 0\); set FlowSDE's",
        ):
            METHODS[method]().check(silent)
    else:
        METHODS[method]().check(silent)
    whole = Chain(found.build(trainable=FullWeights()), found.family.noisy(3))
    if method in REFERENCE:
        with pytest.raises(
            ValueError,
            match=r"(compares with|needs) (the|a) base model, and .* keeps (none|no weights .*); (train|use) a LoRA",
        ):
            METHODS[method]().check(whole)
    else:
        METHODS[method]().check(whole)


def test_no_sample_is_recovered_from_the_pure_noise_of_a_flow(member: Find) -> None:
    found = member("sd3")
    chain = Chain(found.base, found.family.noisy(3))
    with pytest.raises(ValueError, match=r"no sample can be recovered from state 3, .* set step_range to \[2, 1\]"):
        DirectAlign(inversion=0.2).check(chain)
    DirectAlign(inversion=0.2, step_range=(2, 1)).check(chain)
