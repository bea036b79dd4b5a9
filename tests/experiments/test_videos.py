"""Table 3: equal budgets and tries, latents that are optimized and scored, and what VBench is asked to score."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from experiments.base import Row, Table
from experiments.latents import Latents
from experiments.marks import SAMPLES, START, marked
from experiments.methods import CLIP_LATENTS, CLIP_METHODS, CLIP_TARGETS, ITERATIONS, VC2_METHODS, VC2_TARGET, Method
from experiments.paper.table3 import Table3
from experiments.paper.tuning_video import TuningVideo
from experiments.results import Results
from experiments.settings import ROOT, SD14, TINY, VC2, Setting
from experiments.vbench import AVERAGE, Base, Optimized, Trained, VBenchRun
from rlr.cli.vbench.__main__ import parser
from rlr.evaluation.vbench.dimensions import SIX
from rlr.toy.world.prompts import held_out_video_prompts

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Setting:
    """The tiny setting where of every method the last rate is best."""
    folder = tmp_path_factory.mktemp("tuned")
    setting = replace(TINY, results=folder / "results", runs=folder / "runs")
    for run in TuningVideo().runs(setting, ()):
        gain = float(run.key["lr"])
        rows: list[Row] = [{"update": update, "TinyHPSv2 x100": 50 + update * gain} for update in (0.0, 4.0)]
        Results.of(setting, "tuning_video").add(run, rows, {})
    return setting


@pytest.fixture(scope="module")
def parsed() -> dict[str, dict]:
    """What has been parsed before, by its command; to parse is slow."""
    return {}


@pytest.fixture
def short_config(printed, parsed) -> Callable[[str], dict]:
    """Returns what a command of ``train.py`` makes of the configs, with classes by their short names."""

    def bare(tree: object) -> object:
        if isinstance(tree, dict):
            named = "class_path" in tree
            tree = {"class": str(tree["class_path"]).split(".")[-1], **tree.get("init_args", {})} if named else tree
            return {name: bare(value) for name, value in tree.items()}
        return [bare(value) for value in tree] if isinstance(tree, list) else tree

    def read(command: str) -> dict:
        if command not in parsed:
            parsed[command] = bare(printed(shlex.split(command)[2:]))
        return parsed[command]

    return read


# ---------------------------------------------------------------- the setting tiny


def test_every_method_takes_as_many_samples_at_its_best_rate(tuned, short_config) -> None:
    runs = [run for run in Table3().runs(tuned, SEEDS) if run.key["method"] != CLIP_LATENTS.name]
    assert [run.key["seed"] for run in runs] == [seed for seed in SEEDS for _ in CLIP_METHODS]
    for run, method in zip(runs, CLIP_METHODS, strict=False):
        config = short_config(run.command)
        model, data, trainer = config["model"], config["data"], config["trainer"]
        parts = model["estimator"].get("num_minibatches", 1)
        assert (method.samples, method.updates_per_round) == (
            data["batch_size"] * model["optimization"]["accumulate"] / parts,
            parts,
        )
        assert trainer["max_steps"] * method.samples == Table3.plans["tiny"].samples
        assert trainer["callbacks"][-1]["updates"] == [trainer["max_steps"]]
        assert (model["optimization"]["lr"], model["optimization"]["decay_steps"], model["sampler"]["steps"]) == (
            float(method.rates[-1]),
            0,
            10,
        )
        assert (model["reward"]["reward"]["class"], model["seed"]) == ("TinyHPSv2", 0)


def test_rlr_on_videos_is_equation_11_and_nothing_else(tuned, short_config) -> None:
    (run,) = (run for run in Table3().runs(tuned, (0,)) if run.key["method"] == "RLR")
    estimator = short_config(run.command)["model"]["estimator"]
    assert (estimator["class"], estimator["length"], estimator["steps"]) == ("RLR", 4, 1)
    assert {estimator[f"{part}_weight"] for part in ("first", "half", "zeroth")} == {1.0}
    assert estimator["control"] is None


def test_latents_are_of_the_first_held_out_prompts(tuned, short_config) -> None:
    runs = [run for run in Table3().runs(tuned, SEEDS) if run.key["method"] == CLIP_LATENTS.name]
    assert [run.key["seed"] for run in runs] == list(SEEDS)
    config = short_config(runs[2].command)
    model, data = config["model"], config["data"]
    assert (model["seed"], model["iterations"], model["clip"]) == (2, ITERATIONS, float(CLIP_LATENTS.rates[-1]))
    whole, some = (settings(f"tiny_{name}") for name in ("video", "latents"))
    first = held_out_video_prompts(data["held_out"], data["seed"])
    assert first == held_out_video_prompts(whole["held_out"], whole["seed"])[: len(first)]
    assert some == {"held_out": 20, "batch_size": 4, "seed": 1000}
    # the same rewards of the same frames, but for diversity, which one sample has not
    of_latents, of_runs = (
        rewards_of(config) for config in (config, short_config(Table3().runs(tuned, (0,))[0].command))
    )
    assert [reward["class"] for reward in of_latents] == ["FrameReward", "MotionCheck", "DynamicCheck"]
    *shared, last = of_runs
    assert (shared, last["class"]) == (of_latents, "Diversity")


def rewards_of(config: dict) -> list[dict]:
    """The rewards of an evaluation."""
    return config["trainer"]["callbacks"][-1]["metrics"]


def settings(evaluation: str) -> dict:
    """The settings of the only set of prompts that an evaluation has."""
    config = yaml.safe_load((ROOT / "experiments" / "configs" / f"{evaluation}.yaml").read_text())
    if "data" in config:
        return config["data"]["init_args"]
    (prompts,) = config["trainer"]["callbacks"][-1]["init_args"]["prompts"].values()
    return prompts["init_args"]


def test_every_method_has_as_many_tries_on_other_prompts(tuned, short_config) -> None:
    runs = TuningVideo().runs(tuned, SEEDS)
    tries = {
        str(run.key["method"]): {c.key["lr"] for c in runs if c.key["method"] == run.key["method"]} for run in runs
    }
    assert set(tries) == {method.name for method in (*CLIP_METHODS, CLIP_LATENTS)}
    assert {len(rates) for rates in tries.values()} == {5}
    for name in ("video", "latents"):
        assert settings(f"tiny_{name}")["seed"] != settings(f"tiny_{name}_validation")["seed"]
        (run, *_) = (run for run in runs if f"tiny_{name}_validation.yaml" in run.command)
        assert short_config(run.command)["model"]["seed"] not in SEEDS


def test_without_tuning_one_sentence_says_what_to_run(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"run\.py tuning_video --setting tiny"):
        Table3().runs(replace(TINY, results=tmp_path), (0,))
    with pytest.raises(ValueError, match="no setting sd14; choose from tiny, vc2"):
        Table3().runs(SD14, (0,))


# ---------------------------------------------------------------- latents


@pytest.fixture
def run() -> Latents:
    method = Method("toy", "tests/experiments/toy_latents.yaml", samples=0, seeds=("model.init_args.seed",))
    return Latents(method, "tests/experiments/toy_latents_evaluation.yaml", 3)


def test_latents_have_a_row_before_and_one_after(run, tmp_path) -> None:
    before, after = run.run(tmp_path / "run", tmp_path / "base")
    assert (before["update"], after["update"]) == (0, 2)
    assert (before["reward_calls"], after["reward_calls"]) == (0, 3 * 2 * 2 + 3 * 2)
    assert before["Level gain"] == 0 == before["step_seconds"]
    assert after["Level low"] > 0
    assert after["Level"] == pytest.approx(before["Level"] + after["Level gain"], abs=1e-5)
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "run" / "predictions").glob("[0-9]*.json"))]
    # what DOODL itself has noted of all frames
    assert before["Level"] == pytest.approx(sum(record["reward_before"] for record in records) / 3, abs=1e-5)
    assert after["Level"] == pytest.approx(sum(record["reward"] for record in records) / 3, abs=1e-5)


# ---------------------------------------------------------------- the setting vc2


def test_commands_on_videocrafter_parse(short_config) -> None:
    runs = Table3().runs(VC2, SEEDS)
    assert [run.key["method"] for run in runs[:5]] == ["base", "DDPO", "VADER", "RLR", "DOODL"]
    assert len(runs) == 1 + 3 * 4
    for run in runs[:5]:
        *training, scoring = run.command.split(" && ")
        options, further = parser().parse_known_args(shlex.split(scoring)[3:])
        assert options.samples == (1 if run.key["method"] == "DOODL" else 5)
        assert options.dimensions == [dimension.name for dimension in SIX]
        assert further in ([], ["--model.init_args.seed=0"])
        configs = [short_config(command) for command in training]
        assert all(config["model"]["seed"] == 0 for config in configs)
        if configs and run.key["method"] != "DOODL":
            model, data, trainer = (configs[0][name] for name in ("model", "data", "trainer"))
            samples = (
                data["batch_size"] * model["optimization"]["accumulate"] / model["estimator"].get("num_minibatches", 1)
            )
            assert (samples, trainer["max_steps"]) == (8, 450)
            assert model["reward"]["reward"]["class"] == "HPSv2"
        elif configs:
            assert (configs[0]["data"]["class"], configs[0]["data"]["evaluation_samples"]) == ("VBenchPrompts", 1)


def test_one_sentence_says_what_is_missing(monkeypatch, tmp_path) -> None:
    table, here = Table3(), replace(VC2, weights=())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "needs a GPU" in str(table.missing(here))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    assert "subject_consistency needs the weights" in str(table.missing(here))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert "VideoCrafter/VideoCrafter2" in str(table.missing(replace(VC2, weights=VC2.weights)))
    assert table.missing(TINY) is None


def pretend(monkeypatch, status: int = 0) -> list[list[str]]:
    """Puts a training run and a scorer in place that note their arguments; the scorer returns 1, 2, … and 50."""
    commands: list[list[str]] = []

    def score(arguments: list[str]) -> int:
        commands.append(arguments)
        (out,) = (Path(argument.removeprefix("--out=")) for argument in arguments if argument.startswith("--out="))
        out.mkdir(parents=True, exist_ok=True)
        percent = {dimension.name: k + 1 for k, dimension in enumerate(SIX)} | {"temporal_flickering": 9}
        (out / "results.json").write_text(json.dumps({"percent": percent, AVERAGE: 50}))
        return status

    monkeypatch.setattr("experiments.vbench.run_command", lambda arguments: commands.append(list(arguments)))
    monkeypatch.setattr("experiments.vbench.vbench", score)
    return commands


def test_a_trained_model_is_scored_from_its_last_checkpoint(monkeypatch, tmp_path) -> None:
    commands = pretend(monkeypatch)
    scored = VBenchRun(Trained(VC2_METHODS[0].with_reward(VC2_TARGET), 1, 450), 5)
    (row,) = scored.run(tmp_path, "DDPO")
    last = tmp_path / "last.ckpt"
    assert row == {**{dimension.name: float(k + 1) for k, dimension in enumerate(SIX)}, AVERAGE: 50.0}
    assert f"--trainer.default_root_dir={tmp_path}" in commands[0]
    assert commands[1][:1] == ["eval"]
    assert {f"--ckpt={last}", "--samples=5", "--name=DDPO", "--model.init_args.seed=0"} < set(commands[1])
    assert not any("ckpt_path" in argument for argument in commands[0])
    last.touch()
    scored.run(tmp_path, "DDPO")
    assert f"--ckpt_path={last}" in commands[2]


def test_the_base_model_is_scored_without_training(monkeypatch, tmp_path) -> None:
    commands = pretend(monkeypatch)
    VBenchRun(Base("a.yaml"), 5).run(tmp_path, "base")
    assert [arguments[:2] for arguments in commands] == [["eval", "--config=a.yaml"]]


def test_optimized_videos_are_scored_under_the_names_of_their_prompts(monkeypatch, tmp_path) -> None:
    commands = pretend(monkeypatch)
    folder = tmp_path / "predictions"
    folder.mkdir()
    for k, prompt in enumerate(("a cat", "a cat", "a dog")):
        (folder / f"{k:05d}.json").write_text(json.dumps({"prompt": prompt}))
        (folder / f"{k:05d}.mp4").write_text(str(k))
    for _ in range(2):
        VBenchRun(Optimized(Method("DOODL", "a.yaml"), 0, 2), 2).run(tmp_path, "DOODL")
    found = {path.name: path.read_text() for path in (tmp_path / "videos").iterdir()}
    assert found == {"a cat-0.mp4": "0", "a cat-1.mp4": "1", "a dog-0.mp4": "2"}
    assert {f"--videos={tmp_path / 'videos'}", "--samples=2"} < set(commands[1])


def test_a_mistake_of_vbench_fails_the_run(monkeypatch, tmp_path) -> None:
    pretend(monkeypatch, status=2)
    with pytest.raises(RuntimeError, match="VBench stopped with a mistake"):
        VBenchRun(Base("a.yaml"), 5).run(tmp_path, "base")


# ---------------------------------------------------------------- what is shown


def test_latents_stand_beside_their_own_base(tuned) -> None:
    def rows(model: str, method: str, end: float, base: float, gain: float) -> list[Row]:
        common: Row = {"model": model, "reward": "R", "method": method, "prompts": "held_out"}
        pairs = ((0.0, START, 0.0), (end, SAMPLES, gain))
        return [
            {**common, "update": u, "at": mark, "proxy": base + g, "proxy gain": g, "R": base + g, "R gain": g}
            for u, mark, g in pairs
        ]

    some = [*rows("TinyVideo", "RLR", 32.0, 60.0, 5.0), *rows("TinyVideo by EDICT", "DOODL", 5.0, 58.0, 9.0)]
    overview, *details = Table3().report(some)
    assert isinstance(overview, Table)
    assert list(overview.rows) == [
        ("TinyVideo", "base", "60.00"),
        ("TinyVideo", "RLR", "65.00"),
        ("TinyVideo by EDICT", "base", "58.00"),
        ("TinyVideo by EDICT", "DOODL", "67.00"),
    ]
    # of each model the measurements and the differences
    assert len(details) == 4


def test_rows_of_latents_are_marked_as_those_of_runs(run, tmp_path, monkeypatch) -> None:
    target = replace(CLIP_TARGETS[0], label="Level")
    monkeypatch.setattr(
        Latents, "run", lambda *_: [{"update": float(u), "Level": u, "Level gain": u} for u in (0, ITERATIONS)]
    )
    run = run.as_run(replace(TINY, runs=tmp_path), "table3", {"method": "toy", "seed": 0})
    assert [(row["at"], row["proxy"]) for row in marked(run, {ITERATIONS: SAMPLES}, target).measure()] == [
        (START, 0),
        (SAMPLES, ITERATIONS),
    ]


def test_scores_of_vbench_stand_beside_the_papers_rows() -> None:
    score = {**{dimension.name: 50.0 for dimension in SIX}, AVERAGE: 50.0}
    rows: list[Row] = [{"method": name, "seed": float(s), **score} for name, s in (("base", 0), ("RLR", 0), ("RLR", 1))]
    (table,) = Table3().report(rows)
    assert isinstance(table, Table)
    assert [(line[0], line[-2], line[-1]) for line in table.rows] == [("base", "50.00", "1"), ("RLR", "50.00", "2")]
    (paper,) = Table3.published
    assert paper.rows[-1] == ("RLR", "97.53", "97.19", "98.05", "70.69", "66.15", "71.08", "84.61")
    assert {len(line) for line in paper.rows} == {len(paper.head)}
