"""The callback judges a few videos while training and all in ``test``; a stand-in takes VBench's place."""

import inspect
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from rlr.callbacks import EMA, VBenchEvaluation
from rlr.cli import main
from rlr.data import Prompts, VBenchPrompts
from rlr.evaluation.vbench.metric import write
from rlr.evaluation.vbench.naming import VideoName
from tests.cli.vbench.test_generation import align, sampled
from tests.evaluation.vbench.conftest import fake, files  # noqa: F401
from tests.evaluation.vbench.toy import CONFIG, PROMPTS, Unwilling, write_info
from tests.modules.toy import run, weights

pytestmark = [pytest.mark.usefixtures("fake", "files"), pytest.mark.filterwarnings("ignore:.*fork.*")]
DIMENSIONS = tuple(dict.fromkeys(name for names in PROMPTS.values() for name in names))


def data(batch_size=2):
    return Prompts(["a cat"], test=["a cat"], batch_size=batch_size)


@pytest.fixture
def judge(tmp_path):
    """Returns a function that makes the callback; frames of 8 × 8 pixels become large enough to be judged."""
    info = write_info(tmp_path / "info.json")

    def make(**settings):
        prompts = VBenchPrompts(DIMENSIONS, str(info), batch_size=settings.pop("batch_size", 4), evaluation_samples=2)
        return VBenchEvaluation(prompts=prompts, **{"enlarge": 16, **settings})

    return make


def train(callbacks, tmp_path, steps=4, module=None, **settings):
    module = module or align(Unwilling())
    run(module, data(), steps, callbacks=callbacks, default_root_dir=tmp_path / "run", **settings)
    return module


def results(tmp_path, place):
    return json.loads((tmp_path / "run" / "vbench" / place / "results.json").read_text())


def test_judges_every_n_updates_and_at_the_end(judge, tmp_path):
    train([judge(every=2, limit=1)], tmp_path, 5)
    places = sorted(path.name for path in (tmp_path / "run" / "vbench").iterdir())
    assert places == ["000002", "000004", "000005"]
    found = results(tmp_path, "000004")
    assert found["name"] == "after 4 updates, 3 videos"
    # samples number 0 alone
    assert found["percent"] == dict.fromkeys([*DIMENSIONS, "temporal_flickering"], pytest.approx(25.0))
    assert found["weighted_average"] == pytest.approx(25.0)


def test_clips_are_those_of_the_weights_at_that_time(judge, tmp_path):
    module = train([judge(limit=1)], tmp_path)
    pixels = sampled(module)[VideoName("A cat", 0)]
    write(tmp_path / "mine.mp4", pixels, 4.0, 16)
    folder = tmp_path / "run" / "vbench" / "000004" / "videos"
    assert (folder / "A cat-0.mp4").read_bytes() == (tmp_path / "mine.mp4").read_bytes()


def test_training_is_as_without(judge, tmp_path):
    alone = train([], tmp_path)
    assert torch.equal(weights(train([judge(every=1)], tmp_path)), weights(alone))


def test_the_whole_set_in_test(judge, tmp_path):
    callback = judge(every=None)
    module = train([callback], tmp_path)
    assert not (tmp_path / "run").joinpath("vbench").exists()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[callback],
        default_root_dir=tmp_path / "run",
        enable_progress_bar=False,
    )
    trainer.test(module, datamodule=data(), verbose=False)
    found = results(tmp_path, "test")
    assert (found["videos"], found["update"]) == (6, 4)
    assert found["percent"]["dynamic_degree"] == pytest.approx(30.0)
    assert trainer.callback_metrics["vbench/weighted_average"] == pytest.approx(30.0)


def test_the_average_is_judged(judge, tmp_path):
    ema = EMA(0.5)
    module = train([ema, judge(limit=1)], tmp_path)
    folder = tmp_path / "run" / "vbench" / "000004" / "videos"
    with ema.applied(module):
        pixels = sampled(module)[VideoName("a cat", 0)]
    write(tmp_path / "mine.mp4", pixels, 4.0, 16)
    assert (folder / "a cat-0.mp4").read_bytes() == (tmp_path / "mine.mp4").read_bytes()
    pixels = sampled(module)[VideoName("a cat", 0)]
    write(tmp_path / "other.mp4", pixels, 4.0, 16)
    assert (folder / "a cat-0.mp4").read_bytes() != (tmp_path / "other.mp4").read_bytes()


def test_loggers_get_scores_table_and_clips(judge, tmp_path):
    logger = CSVLogger(tmp_path / "logs")
    train([judge(limit=1)], tmp_path, logger=logger)
    logger.save()
    text = (tmp_path / "logs" / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert "vbench/subject_consistency" in text
    assert "vbench/weighted_average" in text
    media = tmp_path / "logs" / "lightning_logs" / "version_0" / "media"
    assert (
        (media / "tables" / "vbench_000004.csv")
        .read_text()
        .splitlines()[-1]
        .startswith('"after 4 updates, 3 videos",25.00')
    )
    assert sorted(path.name for path in (media / "vbench").iterdir()) == [f"{k}_000004.mp4" for k in range(3)]


class Leave(Callback):
    """Leaves behind what each rank knows in the end."""

    def __init__(self, folder):
        self.folder = folder

    def setup(self, trainer, pl_module, stage):
        torch.set_num_threads(1)  # a forked process has none of its parent's threads

    def teardown(self, trainer, pl_module, stage):
        numbers = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("vbench")}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(numbers))


def test_two_processes_share_the_clips(judge, tmp_path):
    train([judge(limit=2, samples=2)], tmp_path / "one", 1)
    settings = {"strategy": "ddp_fork", "devices": 2}
    (tmp_path / "two").mkdir()
    run(
        align(Unwilling()),
        data(1),
        1,
        callbacks=[judge(limit=2, samples=2), Leave(tmp_path / "two")],
        default_root_dir=tmp_path / "two" / "run",
        **settings,
    )
    known = [json.loads((tmp_path / "two" / f"{rank}.json").read_text()) for rank in range(2)]
    assert known[0] == known[1]
    assert known[0]["vbench/weighted_average"] == pytest.approx(30.0)
    one, two = (results(tmp_path / name, "000001") for name in ("one", "two"))
    assert one["scores"] == two["scores"]


def test_missing_weights_stop_before_the_first_step(judge, tmp_path, files):  # noqa: F811
    (files / "raft_model" / "models" / "raft-things.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"^dynamic_degree needs the weights .*raft-things.pth"):
        train([judge()], tmp_path)
    # in `test` only
    train([judge(every=None)], tmp_path)


def test_settings_that_make_no_sense(judge):
    for name in ("every", "limit", "samples", "enlarge"):
        with pytest.raises(ValueError, match=f"VBenchEvaluation: expected {name} >= [01], found -1"):
            judge(**{name: -1})


def test_the_page_lists_every_argument():
    page = (Path(__file__).parents[2] / "docs" / "vbench.md").read_text(encoding="utf-8")
    assert f"`VBenchEvaluation({', '.join(inspect.signature(VBenchEvaluation).parameters)})`" in page


def test_a_config_may_name_it(judge, tmp_path, capsys):
    """The snippet of the page, merged into a config."""
    page = (Path(__file__).parents[2] / "docs" / "vbench.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "over.yaml").write_text(snippet)
    with pytest.raises(SystemExit) as exit_:
        main(["fit", f"--config={tmp_path / 'config.yaml'}", f"--config={tmp_path / 'over.yaml'}", "--print_config"])
    assert exit_.value.code == 0
    (callback,) = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    assert callback["init_args"]["every"] == 100
