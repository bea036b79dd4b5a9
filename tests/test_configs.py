"""Every config that is shipped is parsed, and every alignment takes a step with a small random model in its place."""

import contextlib
import copy
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from pydoc import locate

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from rlr.chain import Chain
from rlr.cli import main
from rlr.cli.parser import build
from rlr.estimators import Estimator
from rlr.modules import DOODL, Alignment
from rlr.samplers import Sampler
from rlr.schedules import RectifiedFlow
from tests.config_cover import NETWORKS, classes, cover, filled_in, pieces, said_by
from tests.data.fixtures import HPD, NO_PICTURES
from tests.estimators.problems import Affine, Cosine
from tests.rewards import guesses
from tests.rewards.folder import FOLDER
from tests.rewards.geneval.scenes import write as write_scenes
from tests.rewards.random_viclip import SMALL, write_random_viclip
from tests.rewards.test_videoalign import write as write_videoalign

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path for kind in ("image", "video") for path in (ROOT / "configs" / kind).glob("*.yaml"))
PARTS = sorted((ROOT / "configs").glob("*/parts/*.yaml"))
FRAGMENTS = sorted((ROOT / "configs" / "evaluation").glob("*.yaml"))
TABLES = [path for path in FRAGMENTS if path.stem != "geneval"]
LATENTS = [path for path in CONFIGS if path.name.startswith("doodl_")]
ALIGNMENTS = [path for path in CONFIGS if not path.name.startswith("pretrain_") and path not in LATENTS]
FOLDERS = {
    "VideoCrafter": "random_vc",
    "TinyVideo": "random_vc",
    "StableDiffusion3": "random_sd3",
    "StableDiffusionXL": "random_sdxl",
    "Flux": "random_flux",
    "Flux2": "random_flux2",
    "QwenImage": "random_qwenimage",
    "ZImage": "random_zimage",
    "Wan": "random_wan",
    "CogVideoX": "random_cogvideox",
    "LTXVideo": "random_ltx",
    "HunyuanVideo15": "random_hunyuan15",
}
"""The fixture that writes a small random model of a class; ``random_sd`` for all others."""
SIZED = ("StableDiffusion3", "StableDiffusionXL", "Flux", "Flux2", "QwenImage", "ZImage")
"""The models of images whose configs set a size, or whose default is that of the published weights."""

FLOWS = (
    *("StableDiffusion3", "Flux", "Flux2", "QwenImage", "ZImage", "Wan", "LTXVideo", "HunyuanVideo15"),
    "TinyFlow",
)
"""The models on the schedule of a rectified flow."""
VIDEOS = {
    "VideoCrafter": (2, [16, 16]),
    "Wan": (3, [16, 16]),
    "CogVideoX": (5, [16, 16]),
    "LTXVideo": (3, [32, 32]),
    "HunyuanVideo15": (3, [16, 16]),
}
"""Frames and size of small videos, by the models whose configs have those of the published weights."""

FAMILIES = ("sd35", "flux", "flux2", "qwen", "zimage")
"""The rectified flows that every method and every judge has a config for."""
ALIGNED = (*FAMILIES, "sdxl", "wan", "ltx", "hunyuan15", "cogvideox")
"""The models whose configs say which numbers are published and which are ours."""
JUDGES = ("ocr", "geneval")
"""Rewards without a gradient that read the image."""
WITHOUT_GRADIENT = ("rlr", "half_order", "grpo", "nft", "awm")
"""The methods that need no gradient of the reward."""
AUTHORS = (
    "flux_leapalign_hpsv2",
    "flux_direct_align_hpsv2",
    "flux_srpo_hpsv2",
    "flux_mix_grpo_hpsv2",
    "sd35_grpo_fast_pickscore",
    "sd35_grpo_guard_pickscore",
    "sdxl_drtune_hpsv2",
)
"""The configs of methods in the settings of their authors, which say of each number whose it is."""
SEVERAL_GPUS = {"Sharded", "EMA"}
"""What the trainer of full weights on several GPUs has beside the others; each has tests of its own."""


def name(path: Path) -> str:
    return path.relative_to(ROOT / "configs").as_posix()


QUICK = cover(ALIGNMENTS)
STEPS = [path if path in QUICK else pytest.param(path, marks=pytest.mark.slow) for path in ALIGNMENTS]
PREVIEWED = {ROOT / "configs" / kind / "tiny_rlr.yaml" for kind in ("image", "video")}
PREVIEW = [
    "--trainer.callbacks+=Preview",
    "--trainer.callbacks.init_args.split=train",
    "--trainer.callbacks.init_args.number=2",
]
"""Samples before and after training, as the callbacks of the configs make them, too: most of the time of a small step.

Of the quick steps, one of images and one of videos makes them.
"""
OPTIMISED = [
    pytest.param(path, marks=pytest.mark.slow) if path.stem.endswith(("_hpsv2", "_aes")) else path for path in LATENTS
]


@cache
def resolved(path: Path) -> dict:
    """What the command line makes of a config, parts and defaults filled in."""
    printed = io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as exit_:
        main(["fit", f"--config={path}", "--print_config"])
    assert exit_.value.code == 0
    return yaml.safe_load(printed.getvalue())


def test_there_is_a_config_for_every_row_of_the_table():
    rows = {
        f"{model}_{method}_{reward}"
        for model in ("sd14", "sd21")
        for method in ("rlr", "alignprop", "ddpo")
        for reward in ("pickscore", "hpsv2", "aes", "imagereward")
    }
    assert len(rows) == 24
    clips = {
        f"vc2_{method}_{reward}" for method in ("rlr", "vader", "ddpo") for reward in ("hpsv2", "pickscore", "aes")
    }
    tiny = {
        f"tiny_{name}"
        for name in (
            "rlr",
            "backprop",
            "reinforce",
            "ddpo",
            "alignprop",
            "draft1",
            "draft_lv",
            "refl",
            "leapalign",
            "leapalign_clipped",
            "look_ahead",
            "look_ahead_check",
            "look_ahead_stand_in",
            "look_ahead_awm",
            "drtune",
            "direct_align",
            "srpo",
            "grpo",
            "grpo_fast",
            "grpo_guard",
            "hybrid",
            "awm",
            "nft",
            "ram",
            "flow_look_ahead",
            "flow_grpo",
            "flow_nft",
            "flow_awm",
        )
    }
    presets = {f"tiny_rlr_{name}" for name in ("paper", "half_order", "official")}
    flows = {f"{model}_{method}_pickscore" for model in FAMILIES for method in (*WITHOUT_GRADIENT, "draft")}
    videos = {f"{model}_{method}_pickscore" for model in ("wan", "ltx") for method in (*WITHOUT_GRADIENT, "draft")}
    judged = {f"{model}_{method}_{judge}" for model in FAMILIES for method in WITHOUT_GRADIENT for judge in JUDGES}
    required = rows | clips | tiny | presets | flows | videos | judged | {"sd14_rlr_jpeg", *AUTHORS}
    assert required <= {path.stem for path in ALIGNMENTS}


def comment(path: Path) -> str:
    return " ".join(line.lstrip("#").strip() for line in path.read_text().splitlines() if line.startswith("#"))


def says_whose_numbers(text: str) -> bool:
    return re.search(r"\b(publish(ed|es)(?! weights)|ours)\b", text, re.IGNORECASE) is not None


def sources(path: Path) -> set[Path]:
    """A config, and the parts and bases that it names, and those name."""
    body = "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#"))
    named = [path.parent / file for file in re.findall(r"[\w/]+\.yaml", body)]
    return {path}.union(*map(sources, named))


def test_configs_of_the_models_that_peers_align_say_whose_numbers_they_have():
    configs = [path for path in CONFIGS if path.stem.partition("_")[0] in ALIGNED]
    assert {path.stem.partition("_")[0] for path in configs} == set(ALIGNED)
    files = set().union(*map(sources, configs))
    assert ROOT / "configs" / "image" / "parts" / "rlr.yaml" in files
    assert sorted(name(file) for file in files if not says_whose_numbers(comment(file))) == []
    assert not says_whose_numbers("Not run on the published weights.")
    assert says_whose_numbers("Ours: the learning rate.")


def unsourced(text: str) -> list[str]:
    """The lines of a config that set a number and do not say whose it is."""
    return [line.strip() for line in text.splitlines() if re.match(r"\s*\w+: \[?[\d.]", line) and " # " not in line]


@pytest.mark.parametrize("stem", AUTHORS)
def test_every_number_of_an_authors_setting_says_whose_it_is(stem):
    assert unsourced((ROOT / "configs" / "image" / f"{stem}.yaml").read_text()) == []


def test_a_number_that_says_nothing_is_seen():
    assert unsourced("# 3 steps\nsteps: 25  # paper\nlr: 1.0e-5\nstep_range: [9, 2]\nreward: HPSv2") == [
        "lr: 1.0e-5",
        "step_range: [9, 2]",
    ]


@pytest.mark.parametrize(
    ("stem", "samples"),
    [
        ("flux_leapalign_hpsv2", 64),
        ("flux_direct_align_hpsv2", 32),
        ("flux_srpo_hpsv2", 32),
        ("flux_mix_grpo_hpsv2", 32 * 12),
    ],
)
def test_all_gpus_together_have_the_published_number_of_samples(stem, samples):
    config = resolved(ROOT / "configs" / "image" / f"{stem}.yaml")
    batches = config["trainer"]["devices"] * config["model"]["init_args"]["optimization"]["accumulate"]
    assert batches * config["data"]["init_args"]["batch_size"] == samples


def test_every_part_is_used():
    for part in PARTS:
        folder = part.parents[1]
        texts = "".join(config.read_text() for config in folder.glob("*.yaml"))
        inner = "".join(other.read_text() for other in PARTS if other.parent == part.parent)
        assert f"parts/{part.name}" in texts or f"base: {part.name}" in inner


@pytest.mark.parametrize("method", ["rlr", "alignprop", "ddpo"])
def test_rows_of_a_method_differ_in_model_and_reward_alone(method):
    written = [yaml.safe_load(path.read_text()) for path in rows_of(method)]
    assert len(written) == 8
    assert len({(row["model"]["init_args"]["model"], row["model"]["init_args"]["reward"]) for row in written}) == 8
    for row in written:
        assert row["model"].keys() == {"base", "init_args"}
        assert row["model"]["init_args"].keys() == {"model", "reward"}
    whole = [filled_in(path) for path in rows_of(method)]
    for config in whole:
        del config["model"]["init_args"]["model"], config["model"]["init_args"]["reward"]
    assert all(config == whole[0] for config in whole)
    assert whole[0]["model"]["init_args"]["optimization"]["lr"] > 0


def test_the_configs_of_a_judge_change_reward_prompts_and_estimator_alone():
    # those of Flow-GRPO's own model are as it publishes them
    judged = [path for path in ALIGNMENTS if path.stem.endswith(JUDGES) and not path.stem.startswith("sd35_grpo")]
    assert len(judged) == 50
    for path in judged:
        ours = filled_in(path)
        # for a reward with a gradient the look-ahead alone is the config of half order
        method = path.stem.rpartition("_")[0].replace("look_ahead_awm", "half_order")
        base = filled_in(path.with_stem(f"{method}_pickscore"))
        assert ours["data"]["class_path"] == "PromptFile"
        for config in (ours, base):
            del config["data"], config["model"]["init_args"]["reward"], config["model"]["init_args"]["estimator"]
        assert ours == base


def rows_of(method: str) -> list[Path]:
    rewards = ("pickscore", "hpsv2", "aes", "imagereward")
    return [
        ROOT / "configs" / "image" / f"{model}_{method}_{reward}.yaml"
        for model in ("sd14", "sd21")
        for reward in rewards
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_is_parsed_whole(path):
    """What is printed names every class by its import path and holds every value of the file and of its parts."""
    printed, written = resolved(path), filled_in(path)
    assert printed["model"]["class_path"].startswith("rlr.")
    assert differences(written, printed) == []


def differences(written, printed, place: str = "") -> list[str]:
    """Where ``printed`` does not hold what ``written`` says; classes may go by longer names or stand alone."""
    if isinstance(written, dict) and isinstance(printed, dict):
        return [
            line for key, value in written.items() for line in differences(value, printed.get(key), f"{place}.{key}")
        ]
    if isinstance(written, list) and isinstance(printed, list) and len(written) == len(printed):
        return [
            line
            for k, pair in enumerate(zip(written, printed, strict=True))
            for line in differences(*pair, f"{place}[{k}]")
        ]
    found = printed["class_path"] if isinstance(printed, dict) and "class_path" in printed else printed
    same = found == written or str(found).endswith(f".{written}") or str(written).startswith("${")
    return [] if same else [f"{place}: {written!r} became {printed!r}"]


def test_a_value_that_is_lost_is_seen():
    assert differences({"a": {"b": 1}}, {"a": {"b": 2}}) == [".a.b: 1 became 2"]
    assert differences({"a": "DDIM"}, {"a": {"class_path": "rlr.samplers.Ancestral"}})
    assert not differences({"a": "DDIM"}, {"a": {"class_path": "rlr.samplers.DDIM", "init_args": {}}})


def test_the_benchmark_of_geneval_is_parsed_over_an_alignment(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    fragments = [f"--config=configs/{name}.yaml" for name in ("image/sd35_grpo_geneval", "evaluation/geneval")]
    with pytest.raises(SystemExit) as exit_:
        main(["test", *fragments, "--print_config"])
    assert exit_.value.code == 0
    (callback,) = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    (metric,) = callback["init_args"]["metrics"]
    assert metric["class_path"].endswith(".GenEvalTasks")
    # the benchmark's rule, whatever is trained for
    assert metric["init_args"]["reward"]["init_args"]["rule"] is None
    assert callback["init_args"]["samples"] == 4


@pytest.mark.parametrize("stem", ["tiny_rlr", "sd14_rlr_jpeg", "sd21_ddpo_aes"])
@pytest.mark.parametrize("path", TABLES, ids=name)
def test_a_fragment_is_parsed_over_an_alignment(path, stem, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as exit_:
        main(["test", f"--config=configs/image/{stem}.yaml", f"--config={path}", "--print_config"])
    assert exit_.value.code == 0
    (callback,) = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    assert callback["class_path"] == "rlr.Evaluation"
    rewards = callback["init_args"]["metrics"]
    assert {reward["class_path"].split(".")[-1] for reward in rewards} == set(NETWORKS)
    assert all(reward["init_args"]["preprocessing"] == "official" for reward in rewards)


@pytest.fixture
def random_folder(request):
    """Returns a function that returns the folder of a small random model of the class that a config names."""

    def folder(config: dict) -> Path:
        model = str(config["model"])
        named = next((fixture for name, fixture in FOLDERS.items() if f".{name}'" in model), "random_sd")
        found = request.getfixturevalue(named)
        # a flow is made of a model of velocity
        options = {"prediction": "v_prediction"} if ".TinyFlow'" in model else {}
        return found if isinstance(found, Path) else found(**options)

    return folder


def test_every_class_of_an_alignment_takes_part_in_a_quick_step():
    """Those that are defaults, too; and every argument that a config gives, and every switch, for images and for videos."""
    for shown in PREVIEWED:
        every = {path: resolved(path) for path in ALIGNMENTS if path.parent == shown.parent}
        named = {path: classes({**config, "trainer": None}) for path, config in every.items()}
        assert set().union(*(named[path] for path in QUICK if path in named)) == set().union(*named.values())
        trainers = set().union(*(classes(config["trainer"]) for config in every.values()))
        assert trainers <= classes(every[shown]["trainer"]) | SEVERAL_GPUS
    assert set().union(*map(said_by, QUICK)) == set().union(*map(said_by, ALIGNMENTS))
    assert set(QUICK) >= PREVIEWED
    assert len(QUICK) < 0.3 * len(ALIGNMENTS)


def test_a_cover_without_one_of_its_configs_lacks_something():
    """What a config names is seen: classes within classes, and switches."""
    config = {"class_path": "RLR", "init_args": {"zeroth": False, "rewards": [{"class_path": "rlr.HPSv2"}]}}
    assert classes(config) == {"RLR", "a network"}
    assert pieces(config, "") == {("RLR",), ("RLR", "zeroth", False), ("RLR", "rewards", "list"), ("a network",)}
    for path in QUICK[:3]:
        others = set().union(*(said_by(other) for other in QUICK if other != path))
        assert not said_by(path) <= others


class Adapted(Affine):
    """A model whose weights before training are known, as with a LoRA."""

    has_reference = True


def check(config: dict) -> None:
    """Checks the estimator of a config against the sampler beside it, on a model without a network."""
    args = config["model"]["init_args"]
    sampler = build(args["sampler"], Sampler, "sampler")
    estimator = build(without_weights(args["estimator"]), Estimator, "estimator")
    schedule = RectifiedFlow() if base_model(config).rpartition(".")[2] in FLOWS else Cosine()
    estimator.check(Chain(Adapted(schedule), sampler))
    if not locate(args["reward"]["class_path"]).differentiable:
        assert not estimator.differentiable


def without_weights(value):
    """A part of a config with a reward that has no weights in the place of each PickScore."""
    if isinstance(value, list):
        return [without_weights(item) for item in value]
    if not isinstance(value, dict):
        return value
    if str(value.get("class_path")).endswith(".PickScore"):
        return {"class_path": "rlr.rewards.Brightness"}
    return {key: without_weights(inner) for key, inner in value.items()}


@pytest.mark.parametrize("path", ALIGNMENTS, ids=name)
def test_an_estimator_fits_the_sampler_beside_it(path):
    check(resolved(path))


def test_an_estimator_that_does_not_fit_is_seen():
    config = copy.deepcopy(resolved(ROOT / "configs" / "image" / "tiny_rlr.yaml"))
    config["model"]["init_args"]["sampler"]["init_args"]["steps"] = 2
    with pytest.raises(ValueError, match=r"does not fit|longer than"):
        check(config)


@pytest.mark.parametrize("reward", ["OCR", "GenEval"])
def test_first_order_on_a_judge_is_seen(reward):
    config = copy.deepcopy(resolved(ROOT / "configs" / "image" / "sd35_draft_pickscore.yaml"))
    check(config)
    config["model"]["init_args"]["reward"] = {"class_path": f"rlr.rewards.{reward}", "init_args": {}}
    with pytest.raises(AssertionError):
        check(config)


def learns_its_slope_first(config: dict) -> bool:
    """Whether the first update has no gradient: a value that is fitted to earlier rollouts, and no likelihood ratio."""
    control = config["model"]["init_args"]["estimator"].get("init_args", {}).get("control") or {}
    options = control.get("init_args", {})
    return bool(options.get("value")) and options["ratio_weight"] == 0


@pytest.mark.parametrize("path", STEPS, ids=name)
def test_takes_a_step(path, random_folder, tmp_path):
    config = resolved(path)
    folder = random_folder(config)
    updates = 2 if learns_its_slope_first(config) else 1
    shown = PREVIEW if path in PREVIEWED or path not in QUICK else ["--trainer.callbacks=[]"]
    small = [*swaps(config, folder, tmp_path), *shown]
    cli = main(["fit", f"--config={path}", *small, f"--trainer.max_steps={updates}"])
    assert isinstance(cli.model, Alignment)
    assert cli.trainer.global_step == updates
    assert trained(cli.model.chain.model.trainable, folder)
    assert cli.trainer.callback_metrics["gradient/total"] > 0
    assert (tmp_path / "last.ckpt").is_file()


def trained(weights: Mapping[str, Tensor], folder: Path) -> bool:
    """Whether a step has changed the weights: those of a LoRA, or all of a transformer."""
    factors = [w for name, w in weights.items() if "lora_B" in name]
    if factors:
        # LoRA's second factor starts at zero
        return any(w.abs().sum() > 0 for w in factors)
    before = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    after = {name.removeprefix("transformer."): w for name, w in weights.items()}
    assert after.keys() == before.keys()
    return any(not w.equal(before[name]) for name, w in after.items())


def test_weights_that_a_step_leaves_as_they_are_are_seen(random_flux):
    folder = random_flux()
    before = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    assert not trained(before, folder)
    assert not trained({"lora_A": torch.ones(1), "lora_B": torch.zeros(1)}, folder)
    name, weight = next(iter(before.items()))
    assert trained({**before, name: weight + 1}, folder)


def base_model(config: dict) -> str:
    """The class of the base model of a config."""
    model = config["model"]["init_args"]["model"]
    return model.get("init_args", {}).get("model", model)["class_path"]


def makes_clips(config: dict) -> bool:
    return "Video" in str(config["model"])


def swaps(config: dict, folder: Path, out: Path) -> list[str]:
    """The arguments that make an alignment small: few steps, directions and samples, beside :func:`common` ones."""
    args = config["model"]["init_args"]
    estimator = args["estimator"]["init_args"]
    # as short as the estimators' terms allow; a VideoCrafter is sampled at some numbers only
    inner = ".sampler.init_args" if "sampler" in args["sampler"]["init_args"] else ""
    sampler = args["sampler"]["init_args"]["sampler"] if inner else args["sampler"]
    steps = 8 if "VideoCrafter" in str(args["model"]) else min(sampler["init_args"]["steps"], 6)
    small = [
        *common(config, folder, out),
        f"--model.init_args.sampler.init_args{inner}.steps={steps}",
        "--model.init_args.optimization.accumulate=1",
        "--trainer.max_steps=1",
        "--trainer.limit_val_batches=0",
    ]
    if isinstance(estimator.get("zeroth"), dict):
        small.append("--model.init_args.estimator.init_args.zeroth.init_args.directions=1")
    if (estimator.get("step_range") or [0])[0] > steps:
        # a rectified flow's first state has no signal, which an inversion needs
        small.append("--model.init_args.estimator.init_args.step_range=[5, 2]")
    if estimator.get("window", 0) > 4:
        small.append("--model.init_args.estimator.init_args.window=4")
    if estimator.get("ceiling") is not None:
        # on the scale of the published network
        small.append("--model.init_args.estimator.init_args.ceiling=null")
    process = (estimator.get("process") or {}).get("init_args", {})
    if (process.get("step_range") or [0])[0] > steps:
        small.append("--model.init_args.estimator.init_args.process.init_args.step_range=[6, 1]")
    if "TinyPickScore" in str(estimator):
        # samples of four steps all fail the check of the config, and equal rewards teach nothing
        small.append("--model.init_args.reward=JPEGCompressibility")
    elif "StandIn" in str(estimator):
        small.append(local_stand_in(estimator))
    if ".Remote'" in str(args["reward"]):
        # two parts that ask no server
        kinds = ("rlr.rewards.JPEGCompressibility", "rlr.rewards.Brightness")
        parts = dict(zip(args["reward"]["init_args"]["rewards"], kinds, strict=True))
        small.append(f"--model.init_args.reward.init_args.rewards={json.dumps(parts)}")
    if config["data"]["init_args"].get("samples_per_prompt", 1) > 1:
        small.append("--data.init_args.samples_per_prompt=4")
    return small


def local_stand_in(estimator: dict) -> str:
    """The option by which the stand-in of an estimator, or of the first one of a sum, has random weights."""
    options = "--model.init_args.estimator.init_args"
    if "estimators" not in estimator:
        return f"{options}.control.init_args.value.init_args.reward.init_args.path={FOLDER}"
    estimators = copy.deepcopy(estimator["estimators"])
    value = estimators[0]["init_args"]["control"]["init_args"]["value"]
    value["init_args"]["reward"]["init_args"]["path"] = str(FOLDER)
    return f"{options}.estimators={json.dumps(estimators)}"


def common(config: dict, folder: Path, out: Path) -> list[str]:
    """The arguments that serve whatever is done: a random model, a random reward, few samples, a CPU."""
    args, data = config["model"]["init_args"], config["data"]
    guided = args["model"]["class_path"].endswith(".Guidance")
    inner = "--model.init_args.model.init_args" + (".model.init_args" if guided else "")
    staged = ".data.init_args" if data["class_path"].endswith(".DCoT") else ""
    full_size = VIDEOS.get(base_model(config).rpartition(".")[2])
    # one group, or the two samples that a baseline needs; those that a check finds equal teach nothing
    checked = args["reward"]["class_path"].endswith("Check")
    few = 8 if checked else 4 if data["init_args"].get("samples_per_prompt", 1) > 1 else 2
    small = [
        f"{inner}.path={folder}",
        f"--data.init_args{staged}.batch_size={few}",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--trainer.strategy=auto",
        "--trainer.precision=32-true",
        f"--trainer.default_root_dir={out}",
        "--trainer.enable_progress_bar=false",
    ]
    if base_model(config).rpartition(".")[2] in SIZED:
        small.append(f"{inner}.size=32")
    if ".T2VTurbo" in str(args["model"]):
        # the LoRA is beside the weights
        small.append(f"{inner}.variant.init_args.path={folder}")
    if full_size:
        frames, size = full_size
        # ViCLIP reads eight frames
        frames = 8 if ".ViCLIP" in str(args["reward"]) else frames
        small += [f"{inner}.frames={frames}", f"{inner}.size={size}"]
    wrapped = "reward" in args["reward"]["init_args"]
    reward = "--model.init_args.reward" + (".init_args.reward" if wrapped else "")
    scored = args["reward"]["init_args"]["reward"] if wrapped else args["reward"]
    if scored["class_path"].rpartition(".")[2] in NETWORKS:
        small += [f"{reward}=PickScore", f"{reward}.init_args.path={FOLDER}"]
    if scored["class_path"].endswith(".VideoAlign"):
        judge = out / "videoalign"
        judge.mkdir()
        write_videoalign(judge)
        small += [f"{reward}.init_args.path={judge}", f"{reward}.init_args.base={judge / 'base'}"]
    if ".ViCLIP" in str(args["reward"]):
        small.append(f"--model.init_args.reward={json.dumps(mix(out))}")
    if data["class_path"].endswith(".PickAPic"):
        small.append(f"--data.init_args.source={NO_PICTURES}")
    if data["class_path"].endswith(".HPDv2"):
        small += [f"--data.init_args.{source}={HPD}" for source in ("train", "benchmark")]
    if data["class_path"].endswith(".PromptFile"):
        prompts = write_scenes(out, guesses.COUNTS) if scored["class_path"].endswith(".GenEval") else write_signs(out)
        small += [f"--data.init_args.{split}={prompts}" for split in ("train", "val")]
        small += guessing(scored["class_path"], prompts)
    return small


def write_signs(folder: Path) -> str:
    """Returns the path of a file of prompts for OCR."""
    path = folder / "prompts.txt"
    path.write_text("\n".join(guesses.SIGNS))
    return str(path)


def guessing(reward: str, prompts: str) -> list[str]:
    """The arguments by which a judge sees something else in every image, since samples of random weights show nothing."""
    seen = {"OCR": {"engine": "read"}, "GenEval": {"detector": "find", "colors": "name_colors"}}
    kind = reward.rpartition(".")[2]
    found = {name: f"{guesses.__name__}.{function}" for name, function in seen.get(kind, {}).items()}
    files = {"metadata": prompts} if kind == "GenEval" else {}
    return [f"--model.init_args.reward.init_args.{name}={value}" for name, value in (found | files).items()]


def mix(folder: Path) -> dict:
    """The sum of an image and a video reward, with small random networks."""
    pick = {"class_path": "PickScore", "init_args": {"path": str(FOLDER)}}
    sizes = {"path": str(write_random_viclip(folder)), "sizes": asdict(SMALL)}
    rewards = {
        "hpsv2": {"class_path": "FrameReward", "init_args": {"reward": pick}},
        "viclip": {"class_path": "ViCLIP", "init_args": sizes},
    }
    return {"class_path": "Combine", "init_args": {"rewards": rewards, "weights": {"hpsv2": 1.0, "viclip": 2.0}}}


@pytest.mark.parametrize("path", OPTIMISED, ids=name)
def test_optimises_latents(path, random_folder, tmp_path):
    config = resolved(path)
    folder = random_folder(config)
    small = [
        *common(config, folder, tmp_path),
        "--model.init_args.steps=8",
        "--model.init_args.iterations=1",
        "--trainer.limit_predict_batches=1",
    ]
    cli = main(["predict", f"--config={path}", *small])
    assert isinstance(cli.model, DOODL)
    assert (cli.model.momentum, cli.model.perturbation, cli.model.edict.mixing) == (0.9, 1e-4, 0.93)
    suffix = "mp4" if makes_clips(config) else "png"
    assert len(list((tmp_path / "predictions").glob(f"*.{suffix}"))) > 1
    story = json.loads((tmp_path / "predictions" / "00000.json").read_text())
    assert len(story["reward_path"]) == 1
    assert story["reward"] != story["reward_before"]


def test_results_go_to_a_folder_named_as_the_config(random_sd, tmp_path, monkeypatch):
    path = ROOT / "configs" / "image" / "tiny_backprop.yaml"
    further = [arg for arg in swaps(resolved(path), random_sd(), tmp_path) if "default_root_dir" not in arg]
    monkeypatch.chdir(tmp_path)
    main(["fit", f"--config={path}", *further])
    assert (tmp_path / "runs" / "tiny_backprop" / "last.ckpt").is_file()
