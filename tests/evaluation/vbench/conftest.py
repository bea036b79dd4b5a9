"""A stand-in for VBench that takes no time, and files in the places of its weights."""

from pathlib import Path

import pytest

from rlr.evaluation.vbench.dimensions import DIMENSIONS

PACKAGE = """
import json
import os
import time

print("what VBench prints")
os.system("echo what its programs print")


class VBench:
    def __init__(self, device, full_info_dir, output_path):
        self.device, self.full_info_dir, self.output_path = device, full_info_dir, output_path

    def build_full_info_json(self, *args, **settings):
        raise RuntimeError("the clips are listed already")

    def evaluate(self, videos_path, name, dimension_list, local):
        (dimension,) = dimension_list
        entries = json.load(open(self.build_full_info_json(videos_path, name, dimension_list)))
        clips = [clip for entry in entries if dimension in entry["dimension"] for clip in entry["video_list"]]
        hub = os.path.join(os.environ["TORCH_HOME"], "hub", "checkpoints", "dino_vitbase16_pretrain.pth")
        facts = {
            "dimension": dimension,
            "device": self.device,
            "local": local,
            "trusts": os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "cache": os.environ["VBENCH_CACHE_DIR"],
            "dino": os.path.realpath(hub),
            "clips": clips,
        }
        with open(os.environ["FAKE_LOG"], "a") as log:
            log.write(json.dumps(facts) + "\\n")
        trouble = os.environ.get("FAKE_TROUBLE", "")
        if trouble == f"fail {dimension}":
            raise KeyError("no\\nsuch key")
        if trouble == f"die {dimension}":
            os._exit(9)
        if trouble == f"hang {dimension}":
            time.sleep(600)
        numbers = [int(clip[-5]) / 10 + 0.25 for clip in clips]
        if trouble == f"nan {dimension}":
            numbers[-1] = float("nan")
        if trouble == f"skip {dimension}":
            clips.pop()
        results = [{"video_path": clip, "video_results": number} for clip, number in zip(clips, numbers)]
        content = {dimension: [sum(numbers) / len(numbers), results]}
        json.dump(content, open(os.path.join(self.output_path, f"{name}_eval_results.json"), "w"))
"""
"""A clip's number is a tenth of the last digit of its name and 0.25."""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the stand-in before the installed package for new processes; returns the file in which it notes what it does."""
    folder = tmp_path / "fake"
    (folder / "vbench").mkdir(parents=True)
    (folder / "vbench" / "__init__.py").write_text(PACKAGE)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("FAKE_LOG", str(folder / "log"))
    (folder / "log").touch()
    return folder / "log"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes a file in the place of each of the weights, and has them taken for the published ones."""
    folder = tmp_path / "weights"
    for dimension in DIMENSIONS.values():
        for file in dimension.files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).write_text(file.path)
    monkeypatch.setattr("rlr.evaluation.vbench.weights.published", lambda file, path: True)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a run of two updates of the toy."""
    from rlr.cli import main
    from tests.evaluation.vbench.toy import CONFIG

    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(CONFIG)
    root = f"--trainer.default_root_dir={folder / 'out'}"
    main(["fit", f"--config={folder / 'config.yaml'}", "--trainer.max_steps=2", root])
    return folder / "out"
