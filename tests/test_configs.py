"""Every config that is shipped is parsed, and every alignment takes a step with a small random model in its place."""

from pathlib import Path

import pytest
import yaml

import rlr.data
from rlr.cli import main
from rlr.modules import Alignment
from tests.rewards.folder import FOLDER

ROOT = Path(__file__).parents[1]
FRAGMENTS = sorted((ROOT / "configs" / "evaluation").glob("*.yaml"))
CONFIGS = sorted({*(ROOT / "configs").rglob("*.yaml")} - {*FRAGMENTS})
ALIGNMENTS = [path for path in CONFIGS if not path.name.startswith("pretrain_")]


def name(path: Path) -> str:
    return path.relative_to(ROOT / "configs").as_posix()


def test_there_are_configs():
    assert {"tiny_rlr.yaml", "tiny_backprop.yaml", "tiny_reinforce.yaml", "sd14_rlr_jpeg.yaml"} <= {
        path.name for path in ALIGNMENTS
    }


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_is_parsed_whole(path, capsys, monkeypatch):
    """What is printed names every class by its import path and holds every value of the file."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as exit_:
        main(["fit", f"--config={path}", "--print_config"])
    assert exit_.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    written = yaml.safe_load(path.read_text())
    assert printed["model"]["class_path"].startswith("rlr.modules.")
    assert printed["trainer"]["max_steps"] == written["trainer"]["max_steps"]
    assert printed["trainer"]["default_root_dir"] == f"runs/{path.stem}"


@pytest.mark.parametrize("path", FRAGMENTS, ids=name)
def test_a_fragment_is_parsed_over_every_alignment(path, capsys, monkeypatch):
    for needed in ("PickAPic", "HPDv2"):
        if not hasattr(rlr.data, needed) and needed in path.read_text():
            pytest.skip(f"{needed} is not here")
    monkeypatch.chdir(ROOT)
    for config in ALIGNMENTS:
        with pytest.raises(SystemExit) as exit_:
            main(["test", f"--config={config}", f"--config={path}", "--print_config"])
        assert exit_.value.code == 0
        printed = yaml.safe_load(capsys.readouterr().out)["trainer"]
        (callback,) = printed["callbacks"]
        assert callback["class_path"] == "rlr.callbacks.RewardEvaluation"
        rewards = {reward["class_path"].split(".")[-1] for reward in callback["init_args"]["rewards"]}
        assert rewards == {"PickScore", "HPSv2", "Aesthetic", "ImageReward"}
        assert all(r["init_args"]["preprocessing"] == "official" for r in callback["init_args"]["rewards"])
        assert printed["default_root_dir"] == f"runs/{config.stem}"


@pytest.mark.parametrize("path", ALIGNMENTS, ids=name)
def test_takes_a_step(path, random_sd, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    cli = main(["fit", f"--config={path}", *swaps(path, random_sd(), tmp_path)])
    assert isinstance(cli.model, Alignment)
    assert cli.trainer.global_step == 1
    # LoRA's second factor starts at zero
    assert any(w.abs().sum() > 0 for name, w in cli.model.chain.model.trainable.items() if "lora_B" in name)
    assert cli.trainer.callback_metrics["gradient/total"] > 0
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


def swaps(path: Path, folder: Path, out: Path) -> list[str]:
    """The arguments that make a config small: a random model, a random reward, few steps and samples."""
    args = yaml.safe_load(path.read_text())["model"]["init_args"]
    inner = "--model.init_args.model.init_args" + (".model.init_args" if "Guidance" in str(args["model"]) else "")
    small = [
        f"{inner}.path={folder}",
        "--model.init_args.sampler.init_args.steps=6",
        "--model.init_args.accumulate=1",
        "--data.init_args.batch_size=4",
        "--trainer.max_steps=1",
        "--trainer.limit_val_batches=0",
        "--trainer.accelerator=cpu",
        f"--trainer.default_root_dir={out}",
        "--trainer.enable_progress_bar=false",
    ]
    if "PickScore" in str(args["reward"]):
        small += ["--model.init_args.reward=PickScore", f"--model.init_args.reward.init_args.path={FOLDER}"]
    return small
