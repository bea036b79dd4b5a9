"""``python -m rlr.cli.vbench``: from a checkpoint or a folder to the table, and one sentence for what is wrong."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from rlr.cli.vbench.__main__ import main
from rlr.evaluation.vbench.report import formula
from rlr.io.video import write_video
from tests.evaluation.vbench.toy import write_clips, write_info

ROOT = Path(__file__).parents[3]


@pytest.fixture
def info(tmp_path):
    return write_info(tmp_path / "info.json")


@pytest.fixture
def score(info, fake, files, tmp_path):
    """Returns a function that judges the videos of the toy's prompts, two of each; more words may follow."""
    write_clips(tmp_path / "Gen-9", side=128)

    def run(*words):
        given = ["--videos", tmp_path / "Gen-9", "--prompts", info, "--samples", 2, "--out", tmp_path / "out"]
        return main(["score", *map(str, [*given, "--device", "cpu", *words])])

    return run


@pytest.fixture
def refused(capsys):
    """Returns a function that runs a command that must fail, and returns its one sentence."""

    def run(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_folder_stands_in_the_table(score, tmp_path, capsys):
    assert score() == 0
    printed = capsys.readouterr().out
    # clips 0 and 1 have 0.25 and 0.35
    row = r"\| Gen-9 +\| +30.00 \| +30.00 \| +30.00 \| +30.00 \| +30.00 \| +30.00 \| +30.00 \|"
    assert re.search(row, printed)
    assert "| RLR (paper)" in printed
    assert "Temporal Flickering, outside the average: 30.00" in printed
    assert formula() in printed
    assert (tmp_path / "out" / "table.md").read_text().strip() in printed


def test_what_is_left_behind(score, tmp_path, files):
    score()
    found = results(tmp_path / "out")
    assert found["name"] == "Gen-9"
    assert found["weighted_average"] == pytest.approx(30)
    assert found["percent"]["dynamic_degree"] == pytest.approx(30)
    assert found["weights"] == {**dict.fromkeys(found["weights"], 1.0), "dynamic_degree": 0.5}
    assert found["formula"] == formula()
    assert (found["prompts"], found["videos"], found["note"]) == (3, 6, None)
    assert found["scores"]["background_consistency"] == {f"an alley, at night-{i}.mp4": i / 10 + 0.25 for i in (0, 1)}
    assert set(found["versions"]) >= {"vbench", "torch", "rlr"}
    assert {len(sha) for sha in found["files"].values()} == {64}


def test_a_partial_set_says_so(score, tmp_path, refused, capsys):
    (tmp_path / "Gen-9" / "a cat-1.mp4").unlink()
    stated = refused("score", "--videos", tmp_path / "Gen-9", "--prompts", tmp_path / "info.json", "--samples", 2)
    assert re.search(
        r"Gen-9 holds 5 of the 6 videos of the set, and 'a cat-1.mp4' is the first that is missing", stated
    )
    assert score("--partial") == 0
    assert "| Gen-9 (5 of 6 videos) " in capsys.readouterr().out


def test_any_videos(fake, files, tmp_path, capsys):
    for k in range(2):
        write_video(tmp_path / "mine" / f"holiday{k}.mp4", torch.rand(4, 3, 128, 128), 8)
    assert main(["score", "--videos", str(tmp_path / "mine"), "--custom", "--out", str(tmp_path / "out")]) == 0
    assert "| mine (2 own videos) " in capsys.readouterr().out


def test_a_name_and_some_dimensions(score, tmp_path, capsys):
    assert score("--name", "mine", "--dimensions", "imaging_quality", "aesthetic_quality") == 0
    row = r"\| mine +\| +– \| +– \| +– \| +– \| +30.00 \| +30.00 \| +– \|"
    assert re.search(row, capsys.readouterr().out)
    assert results(tmp_path / "out")["weighted_average"] is None


def test_temporal_flickering_needs_no_weights(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "none"))
    info = write_info(tmp_path / "flicker.json", {"a cat": ("temporal_flickering",)})
    write_clips(tmp_path / "clips", ["a cat"], 5)
    words = ["--videos", tmp_path / "clips", "--prompts", info, "--out", tmp_path / "out"]
    assert main(["score", *map(str, words), "--dimensions", "temporal_flickering"]) == 0
    assert "Temporal Flickering, outside the average: 45.00" in capsys.readouterr().out


def evaluate(trained, info, tmp_path, *words):
    # frames of 8 × 8 pixels become large enough to be judged
    given = ["--ckpt", trained / "last.ckpt", "--prompts", info, "--samples", 2, "--enlarge", 16]
    return main(["eval", *map(str, [*given, "--out", tmp_path / "out", "--device", "cpu", *words])])


def test_from_a_checkpoint_to_the_table(trained, info, fake, files, tmp_path, capsys):
    assert evaluate(trained, info, tmp_path) == 0
    assert "| out  " in capsys.readouterr().out
    found = results(tmp_path / "out")
    assert found["videos"] == 6
    assert found["checkpoint"] == str(trained / "last.ckpt")
    judged = len(fake.read_text().splitlines())
    # nothing is made or judged again
    assert evaluate(trained, info, tmp_path) == 0
    assert len(fake.read_text().splitlines()) == judged == 7
    # and the videos are a folder as any other
    words = ["--videos", tmp_path / "out" / "videos", "--prompts", info, "--samples", 2, "--out", tmp_path / "again"]
    assert main(["eval", *map(str, words)]) == 0
    assert results(tmp_path / "again")["percent"] == found["percent"]


def test_results_go_to_the_run_of_the_checkpoint(trained, info, fake, files):
    words = ["--ckpt", trained / "last.ckpt", "--prompts", info, "--samples", 1]
    assert main(["sample", *map(str, words)]) == 0
    assert len(list((trained / "vbench" / "last" / "videos").glob("*.mp4"))) == 3


def test_a_missing_file_stops_before_sampling(trained, info, fake, files, tmp_path, refused, monkeypatch):
    (files / "amt_model" / "amt-s.pth").unlink()
    monkeypatch.setattr("rlr.cli.vbench.generation.main", lambda *args: pytest.fail("sampling has begun"))
    words = ["--ckpt", trained / "last.ckpt", "--prompts", info]
    stated = refused("eval", *words)
    assert stated.startswith("motion_smoothness needs the weights ")
    assert "amt_model/amt-s.pth, which are not there; `make vbench-weights` lists" in stated


def test_what_is_wrong_is_stated_in_one_sentence(refused, tmp_path, files, info):
    assert refused("score") == "there is nothing to judge; set the folder of the videos with --videos"
    stated = "there is nothing to sample from; set --ckpt, --config for its base model, or --videos"
    assert refused("eval") == refused("sample") == stated
    assert refused("eval", "--ckpt", tmp_path / "no.ckpt").startswith("there is no checkpoint ")
    assert refused("score", "--videos", tmp_path / "no").startswith("there is no folder ")
    assert "there is no dimension 'color'" in refused(
        "score", "--videos", tmp_path, "--dimensions", "color", "--custom"
    )
    stated = refused("score", "--videos", tmp_path, "--prompts", tmp_path / "no.json")
    assert stated.startswith("there is no prompt file ")
    write_clips(tmp_path / "clips", side=128)
    (tmp_path / "clips" / "a cat-1.mp4").write_bytes(b"damaged")
    stated = refused(
        "score", "--videos", tmp_path / "clips", "--prompts", info, "--samples", 2, "--out", tmp_path / "out"
    )
    assert "a cat-1.mp4" in stated


def test_unknown_options(capsys, tmp_path):
    for words in (
        ["score", "--vidoes", "x"],
        ["weights", "x"],
        ["eval", "--videos", str(tmp_path), "--trainer.devices=2"],
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert "unrecognized arguments" in capsys.readouterr().err


def recipe(*words):
    """What make would run, also where make itself runs this test and would announce the folder."""
    call = ["make", "--no-print-directory", "-n", *words]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (["CKPT=a b.ckpt"], "--ckpt 'a b.ckpt'"),
        (["CKPT=x", "CONFIG=c", "PROMPTS=p", "SAMPLES=2"], "--ckpt x --config c --prompts p --samples 2"),
        (["VIDEOS=clips", "ARGS=--custom"], "--videos clips --custom"),
    ],
)
def test_variables_of_the_makefile(variables, words):
    dry = recipe("eval-vbench", *variables)
    assert shlex.split(dry.split("-m rlr.cli.vbench eval ")[1]) == shlex.split(words)


def test_weights_have_a_target():
    dry = recipe("vbench-weights")
    assert dry.splitlines()[-1].split()[1:] == ["-m", "rlr.cli.vbench", "weights"]
