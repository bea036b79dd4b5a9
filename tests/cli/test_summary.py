"""What a command says before and after its work."""

import re
import warnings
from pathlib import Path

from rlr.cli import main
from rlr.cli.ending import ending
from rlr.cli.run_folder import Run
from rlr.cli.summary import summary
from rlr.modules import alignment
from tests.cli.conftest import root


def object_(name: str, **arguments: object) -> dict[str, object]:
    return {"class_path": f"rlr.{name}", "init_args": arguments}


CONFIG = {
    "model": object_(
        "ImageAlignment",
        model=object_(
            "Guidance", model=object_("StableDiffusion", path="CompVis/stable-diffusion-v1-4"), scale=5.0, negative=""
        ),
        sampler=object_("DDIM", steps=50, eta=1.0),
        reward=object_("PickScore", chunk=32),
        estimator=object_("RLR", length=4, steps=1, half=True, zeroth=object_("ZerothOrder", directions=1)),
        optimization={"lr": 3e-4, "accumulate": 4, "optimizer": None},
    ),
    "data": object_("PickAPic", batch_size=8),
    "trainer": {"max_steps": 200},
}


def test_a_run_in_plain_words():
    assert summary(CONFIG, "fit", Path("runs/mine")) == (
        "RLR(length 4, ZerothOrder(directions 1)) on StableDiffusion(path stable-diffusion-v1-4) · PickScore · "
        "DDIM(steps 50), guidance 5 · batch 8 × 4 · lr 0.0003 · 200 updates · runs/mine"
    )


def test_other_commands_state_what_they_sample():
    assert summary(CONFIG, "test", Path("runs/mine")) == (
        "StableDiffusion(path stable-diffusion-v1-4) · PickScore · DDIM(steps 50), guidance 5 · runs/mine"
    )


def test_whatever_differs_from_a_default_is_stated():
    arguments = CONFIG["model"]["init_args"]
    changed = {
        **arguments,
        "estimator": object_("HalfOrderRLR", length=3, segments=None, half_weight=0.01, control=object_("LookAhead")),
    }
    changed["sampler"] = object_("DDIM", steps=50, eta=0.5)
    stated = summary({**CONFIG, "model": object_("ImageAlignment", **changed)}, "fit", Path("runs/mine"))
    assert "HalfOrderRLR(length 3, segments null, half_weight 0.01" in stated
    assert "DDIM(steps 50, eta 0.5)" in stated


def test_a_function_has_its_name_and_arguments_that_are_passed_on_have_defaults():
    reward = object_("FunctionReward", function=redness)
    # StableDiffusion's arguments, which Tiny passes on
    tiny = {"class_path": "rlr.toy.models.Tiny", "init_args": {"path": None, "dtype": "float32", "config": None}}
    arguments = {**CONFIG["model"]["init_args"], "reward": reward, "model": tiny}
    stated = summary({**CONFIG, "model": object_("ImageAlignment", **arguments)}, "test", Path("runs/mine"))
    assert stated.startswith("Tiny · FunctionReward(function tests.cli.test_summary.redness) · ")


def redness(images, prompts):
    return images[:, 0].mean((1, 2))


def test_one_update_is_one():
    one = {**CONFIG, "trainer": {"max_steps": 1}}
    assert " · 1 update · " in summary(one, "fit", Path("runs/mine"))


def test_a_warning_of_this_package_is_a_sentence(config, tmp_path):
    main(["fit", f"--config={config()}", root(tmp_path), "--trainer.max_steps=1"])
    assert warnings.formatwarning("too late", UserWarning, alignment.__file__, 3) == "warning: too late\n"
    assert (
        warnings.formatwarning("too late", UserWarning, "/lib/torch/a.py", 3)
        == "/lib/torch/a.py:3: UserWarning: too late\n"
    )


def test_a_command_states_what_it_does_and_ends_with_the_next_one(config, tmp_path, capsys):
    path = config(("  enable_progress_bar: false\n", ""))
    out = tmp_path / "out"
    main(["fit", f"--config={path}", root(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "RLR(length 2, no zeroth) on AffineModel · Level · DDIM(steps 4) · batch 2 · lr 0.01 · 3 updates"
    )
    assert lines[-4].startswith("Level ")
    assert lines[-4].endswith("on the training prompts, in 3 updates")
    *places, last = lines[-2].split(" · ")
    assert places[0] == f"page {out / 'index.html'}"
    assert [last, lines[-1]] == [f"checkpoint {out / 'last.ckpt'}", f"next: python train.py test {out}"]
    main(["test", str(out)])
    lines = capsys.readouterr().out.splitlines()
    *_, last = lines[-2].split(" · ")
    assert [last, lines[-1]] == [f"evaluation {out / 'evaluation'}", f"next: python train.py predict {out}"]
    # of the base model, of the aligned one, and the difference
    assert any(re.fullmatch(r"Level \S+ → \S+ \(\S+\) on Prompts", line) for line in lines[-4:])
    main(["predict", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"samples {out / 'predictions' / 'last'}", f"next: python train.py export {out}"]


def test_a_command_without_progress_is_silent(config, tmp_path, capsys):
    main(["fit", f"--config={config()}", root(tmp_path)])
    written = capsys.readouterr()
    assert (written.out, written.err) == ("", "")


def test_an_ending_has_four_lines_at_most(tmp_path, config, monkeypatch):
    for name in ("index.html", "last.ckpt", "best.ckpt"):
        (tmp_path / name).touch()
    for name in ("lora", "samples", "evaluation"):
        (tmp_path / name).mkdir()
    cli = main(["fit", f"--config={config()}", root(tmp_path)])
    monkeypatch.chdir(tmp_path)
    for command in ("fit", "validate", "test", "predict"):
        stated = ending(command, cli.trainer, cli.model, Run(Path()), 0.5).splitlines()
        assert 2 <= len(stated) <= 4
        assert all(len(line) < 120 for line in stated)
        if command != "fit":
            continue
        assert (
            stated[-2] == "page index.html · LoRA lora · images samples · evaluation evaluation · checkpoint last.ckpt"
        )
