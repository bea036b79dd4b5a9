"""`test` prints the tables that the documentation promises, from the command line and the configs as they are shipped."""

import json
from pathlib import Path

import pytest
import yaml

from rlr.callbacks import Evaluation
from rlr.cli import main
from rlr.toy.data import WorldPrompts
from tests.data.fixtures import HPD, NO_PICTURES
from tests.rewards.authors import FIXTURES, aes_files, hpsv2_files, imagereward_files
from tests.rewards.folder import FOLDER

CONFIGS = Path(__file__).parents[1] / "configs"


def tables(printed: str) -> list[list[str]]:
    """The lines of Markdown tables, as their cells."""
    lines = [line for line in printed.splitlines() if line.startswith("|") and not line.startswith("|-")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_the_built_in_model_has_a_table(tmp_path, capsys):
    prompts = WorldPrompts().prompts("test")[:2]
    small = [
        "--data=Prompts",
        f"--data.init_args.test={json.dumps(prompts)}",
        "--model.init_args.sampler.init_args.steps=2",
        "--model.init_args.estimator=FirstOrder",
    ]
    config = CONFIGS / "image" / "tiny_rlr.yaml"
    main(["test", f"--config={config}", *small, f"--trainer.default_root_dir={tmp_path}"])
    lines = tables(capsys.readouterr().out)
    names = ["TinyPickScore", "TinyHPSv2 x100", "ExactCheck", "diversity"]
    assert ["prompts", "model", *names] in lines
    rows = {line[0]: line[1:] for line in lines}
    assert "Prompts: 2 prompts × 2 samples" in rows
    for name in (*names, "TinyHPSv2"):
        low, high = map(number, rows[name][1].split(" … "))
        assert low <= number(rows[name][0]) <= high


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def small_rewards() -> dict[str, dict[str, str]]:
    """Where each network reward finds a small random model in its authors' format."""
    (hps, architecture), (clip, head), (blip, config) = hpsv2_files(), aes_files(), imagereward_files()
    return {
        "PickScore": {"path": str(FOLDER)},
        "HPSv2": {"path": str(hps), "architecture": architecture},
        "Aesthetic": {"path": str(clip), "head": str(head)},
        "ImageReward": {
            "path": str(blip),
            "architecture": str(config),
            "tokenizer": str(FIXTURES / "imagereward_tokenizer"),
        },
    }


def test_table_2_has_four_rewards_on_two_sets(random_sd, tmp_path, monkeypatch, capsys):
    """The file as it is shipped, but for the places of the weights and the number of prompts."""
    monkeypatch.setenv("PICKAPIC", str(NO_PICTURES))
    monkeypatch.setenv("HPDV2", str(HPD / "benchmark"))
    content, places = yaml.safe_load((CONFIGS / "evaluation" / "table2.yaml").read_text()), small_rewards()
    (callback,) = content["trainer"]["callbacks"]
    callback["init_args"]["limit"] = 2
    for reward in callback["init_args"]["metrics"]:
        reward["init_args"].update(places.pop(reward["class_path"]))
    assert not places
    table2 = tmp_path / "table2.yaml"
    table2.write_text(yaml.safe_dump(content, sort_keys=False))
    small = [
        f"--model.init_args.model.init_args.model.init_args.path={random_sd()}",
        "--model.init_args.sampler.init_args.steps=6",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    cli = main(["test", f"--config={CONFIGS / 'image' / 'sd14_rlr_jpeg.yaml'}", f"--config={table2}", *small])
    head, *lines = tables(capsys.readouterr().out)[:3]
    assert head == ["prompts", "model", "PickScore", "HPSv2.1 x100", "AES", "ImageReward x100"]
    assert [line[:2] for line in lines] == [["pickapic", "base"], ["hpdv2", "base"]]
    (evaluation,) = [c for c in cli.trainer.callbacks if isinstance(c, Evaluation)]
    for line, measurements in zip(lines, evaluation.results.sets.values(), strict=True):
        assert [m.number for m in measurements] == [2] * 4
        for cell, measurement in zip(line[2:], measurements, strict=True):
            mean = measurement.published[1] * measurement.scores.double().mean().item()
            assert number(cell) == pytest.approx(mean, abs=5e-3 + 1e-3 * abs(mean))
    written = json.loads((tmp_path / "evaluation" / "test" / "results.json").read_text())
    assert list(written["sets"]) == ["pickapic", "hpdv2"]
