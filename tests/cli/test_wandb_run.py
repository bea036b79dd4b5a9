"""One run has one run of Weights & Biases, whoever resumes it."""

import json
from pathlib import Path

import pytest

from rlr.cli import main
from tests.callbacks.wandb_file import read, records
from tests.cli.conftest import root


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_SILENT", "true")
    for place in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{place}_DIR", str(tmp_path / "home"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)


def stated(folder: Path):
    """Identity, name, project, group and config of each run in a folder, from the files that `wandb sync` would send."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        found = [wandb_internal_pb2.Record.FromString(data) for data in records(path.read_bytes())]
        (run,) = [record.run for record in found if record.HasField("run")][:1]
        config = [item for record in found for item in (*record.run.config.update, *record.config.update)]
        yield (
            run.run_id,
            run.display_name,
            run.project,
            run.run_group,
            " ".join(f"{i.key} {i.value_json}" for i in config),
        )


def test_wandb_warns_of_nothing_that_lightning_sets(config, tmp_path, offline, monkeypatch, capfd):
    import wandb

    # settings of the process that an earlier test has made are silent
    wandb.teardown()
    monkeypatch.delenv("WANDB_SILENT")
    path = config(
        ("  max_steps: 3\n", "  max_steps: 1\n  logger: {class_path: WandbLogger, init_args: {offline: true}}\n")
    )
    main(["fit", f"--config={path}", root(tmp_path)])
    wandb.finish()
    stated = capfd.readouterr().err
    assert "wandb" in stated
    assert "anonymous" not in stated


def test_a_resumed_run_continues_its_run_of_wandb(config, tmp_path, offline):
    import wandb

    given = ("  max_steps: 3\n", "  max_steps: 2\n  logger: {class_path: WandbLogger, init_args: {offline: true}}\n")
    path = config(given)
    main(["fit", f"--config={path}", root(tmp_path)])
    wandb.finish()
    out = tmp_path / "out"
    main(["fit", str(out), "--resume", "--trainer.max_steps=3"])
    wandb.finish()
    main(["fit", str(out), f"--trainer.default_root_dir={tmp_path / 'two'}"])
    wandb.finish()
    # the service of W&B writes its last records when it ends; W&B merges the files of one identity
    wandb.teardown()
    runs = [*stated(out), *stated(tmp_path / "two")]
    names = [(name, project) for _, name, project, *_ in runs]
    assert names == [*[("out seed 7", "rlr")] * (len(runs) - 1), ("two seed 7", "rlr")]
    # the second run makes an update more, also than the one that was resumed
    (group,) = {group for *_, group, _ in runs[:-1]}
    assert group.startswith("RLR Level AffineModel ")
    assert runs[-1][3] not in ("", group)
    identities = [identity for identity, *_ in runs]
    assert set(identities[:-1]) == {(out / "wandb" / "id").read_text().strip()}
    assert identities[-1] not in identities[:-1]
    assert all("tests.modules.toy.Level" in config for *_, config in runs)
    assert all('estimator "RLR"' in config and "lr 0.01" in config and "seed 7" in config for *_, config in runs)
    # W&B keeps tables as artifacts of its own, too
    kept = [record.artifact for record in read(out) if record.HasField("artifact")]
    kept = [artifact for artifact in kept if artifact.type != "run_table"]
    assert {(artifact.type, artifact.manifest.contents[0].path) for artifact in kept} == {
        ("adapter", "weights.safetensors")
    }
    assert [json.loads(artifact.metadata)["updates"] for artifact in kept] == [2, 3]
    assert not list((tmp_path / "elsewhere").iterdir())
