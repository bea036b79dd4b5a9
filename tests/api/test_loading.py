"""The model of a finished run."""

import pytest
import torch

from rlr import load
from rlr.cli import main


@pytest.fixture(scope="module")
def finished(random_sd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "mine"
    config = folder.parent / "mine.yaml"
    config.write_text(f"""
model:
  class_path: ImageAlignment
  init_args:
    model: {{class_path: StableDiffusion, init_args: {{path: {random_sd()}}}}}
    sampler: {{class_path: DDIM, init_args: {{steps: 4}}}}
    reward: Brightness
    estimator: FirstOrder
    optimization: {{lr: 0.1}}
data: {{class_path: Prompts, init_args: {{train: [a red circle], batch_size: 2}}}}
trainer: {{accelerator: cpu, max_epochs: -1, max_steps: 2, default_root_dir: {folder}}}
""")
    return folder, main(["fit", f"--config={config}"]).model


def test_it_is_the_trained_model(finished, tmp_path):
    folder, module = finished
    found = load(folder)
    weights = module.chain.model.trainable
    assert all(torch.equal(weights[name], weight) for name, weight in found.chain.model.trainable.items())
    assert found.chain.sampler.steps == 4
    assert not torch.equal(found.pixels(["a red circle"]), found.pixels(["a red circle"], base=True))
    assert [row["reward/mean"] for row in found.history if "reward/mean" in row]
    found.export(tmp_path / "kohya", to="kohya")
    assert "aligned with Brightness" in (tmp_path / "kohya" / "README.md").read_text()


def test_its_page_is_that_of_the_command_line(finished):
    folder, _ = finished
    written = (folder / "index.html").read_text()
    (folder / "index.html").unlink()
    assert load(folder).page() == folder / "index.html"
    assert (folder / "index.html").read_text() == written


def test_what_is_no_run_is_a_sentence(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"expected the folder of a run, with the config.yaml that `fit` writes"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"there is no other.ckpt in"):
        load(folder, "other.ckpt")
