"""A prediction that was interrupted goes on, and ends as one that was not."""

import json
import shutil
from functools import partial

import pytest

from rlr.callbacks import prediction as writer
from rlr.cli import main
from rlr.data import PromptPass
from tests.cli.conftest import root, write

WORDS = "[one, two, three, four, five]"


def run(folder, name="out", *options, words=WORDS):
    """Predicts two samples of five prompts, three at a time, and returns the content of all files."""
    path = write(
        folder,
        ("val: [four, five]", f"predict: {words}\n    evaluation_samples: 2"),
        ("batch_size: 2", "batch_size: 3"),
    )
    main(["predict", f"--config={path}", f"--trainer.default_root_dir={folder / name}", *options])
    return contents(folder / name)


@pytest.fixture
def predict(tmp_path):
    """Returns a function that predicts, see ``run``."""
    return partial(run, tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a whole prediction, which tests copy."""
    folder = tmp_path_factory.mktemp("done")
    assert len(run(folder)) == 2 * 10 + 1
    return folder / "out"


@pytest.fixture
def whole(done, tmp_path):
    """The content of all files of a whole prediction, which lies in the folder ``out`` of a test alone."""
    shutil.copytree(done, tmp_path / "out")
    return contents(done)


def contents(folder):
    return {path.name: path.read_bytes() for path in (folder / "predictions").iterdir()}


def interrupt(monkeypatch, after):
    """Ends the process, as Ctrl-C does, instead of writing another image."""
    made, original = [], writer.write_sample

    def write(*args):
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(args)
        original(*args)

    monkeypatch.setattr(writer, "write_sample", write)


@pytest.mark.parametrize("after", [0, 2, 4, 9])
def test_an_interrupted_prediction_ends_as_an_uninterrupted_one(predict, done, tmp_path, monkeypatch, after):
    with monkeypatch.context() as patch:
        interrupt(patch, after)
        with pytest.raises(SystemExit):
            predict()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "predictions").iterdir()}
    assert len(before) == 2 * after + 1
    assert predict() == contents(done)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path.name != "origin.json")


def test_finished_batches_are_not_sampled_again(predict, whole, monkeypatch):
    sampled = []
    monkeypatch.setattr("rlr.modules.sampling.Sampling.generate", lambda module, batch: sampled.append(batch.indices))
    assert predict() == whole
    assert sampled == []


def test_a_sample_whose_image_is_gone_is_made_again(predict, whole, tmp_path):
    (tmp_path / "out" / "predictions" / "00004.png").unlink()
    assert predict() == whole


def test_further_prompts_are_added(predict, done):
    few = predict(words="[one, two, three]")
    assert predict() == contents(done)
    assert {name: file for name, file in contents(done).items() if name in few} == few


@pytest.mark.parametrize(
    ("options", "stated"),
    [
        (["--model.sampler.steps=5"], "were made with another sampler; set another folder with"),
        (["--model.seed=8"], "were made with another seed;"),
        (["--model.reward=tests.modules.toy.Hard"], "were made with another reward and code of the reward;"),
        (["--data.evaluation_samples=1"], "were made with another evaluation_samples;"),
        (["--trainer.precision=64-true"], "were made with another precision;"),
        (["--trainer.callbacks+=EMA"], "were made with another average;"),
        (
            ["--data.predict=[one, six, three, four, five]"],
            "expected a sample of 'six', the prompt of this number, found one of 'two';",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_samples_of_other_settings_are_not_mixed(predict, whole, tmp_path, capsys, options, stated):
    with pytest.raises(SystemExit) as left:
        predict("out", *options)
    assert left.value.code == 2
    assert stated in capsys.readouterr().err
    assert contents(tmp_path / "out") == whole


def test_settings_of_the_training_and_the_batch_do_not_matter(predict, whole):
    assert predict("out", "--model.optimization.lr=1", "--data.batch_size=7") == whole


def test_samples_without_an_origin_are_not_added_to(predict, whole, tmp_path, capsys):
    (tmp_path / "out" / "predictions" / "origin.json").unlink()
    with pytest.raises(SystemExit):
        predict()
    assert "holds samples, and no origin.json that says of what; set another folder with" in capsys.readouterr().err


def test_another_checkpoint_is_another_origin(config, fitted, tmp_path, capsys):
    path = config()
    run = [f"--config={path}", root(tmp_path), f"--ckpt_path={tmp_path / 'out' / 'last.ckpt'}"]
    main(["predict", *run])
    noted = json.loads((tmp_path / "out" / "predictions" / "last" / "origin.json").read_text())
    assert len(noted["checkpoint"]) == 64
    main(["fit", *run, "--trainer.max_steps=4"])
    with pytest.raises(SystemExit):
        main(["predict", *run])
    assert "were made with another checkpoint" in capsys.readouterr().err


def test_a_pass_leaves_out_finished_batches_and_keeps_the_others_whole():
    def indices(done):
        return [b.indices for b in PromptPass(list("abcde"), 2, finished=lambda prompt, i: i in done)]

    assert indices({}) == [[0, 1], [2, 3], [4]]
    assert indices({0, 1, 2, 4}) == [[2, 3]]
    assert [b.indices for b in PromptPass(list("ab"), 3, repeat=2, numbers=[7, 9])] == [[14, 15, 18], [19]]
