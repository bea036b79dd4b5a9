"""Numbers, images and tables reach every logger that can show them, and come back as they were."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import wandb
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image

from rlr.callbacks import Evaluation, SampleGrid, show_image, show_table
from rlr.data import Prompts
from rlr.evaluation.report import Table
from tests.callbacks.every_logger import every_logger
from tests.callbacks.wandb_file import read, rows
from tests.modules.toy import WORDS, align, run

STEP = "trainer/global_step"
KEY = "evaluation/Prompts/Level"


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A run of two updates with all loggers at once; the folder holds what they wrote."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("logged")
        loggers = every_logger(folder, patch)
        evaluation = Evaluation(every=1)
        callbacks = [evaluation, Evaluation(metrics=[], displays=[SampleGrid(2)])]
        data = Prompts(list(WORDS), val=list(WORDS[:3]), batch_size=4)
        run(align(), data, 2, callbacks=callbacks, logger=loggers, default_root_dir=folder)
        loggers[0].experiment.finish()
        # the service of W&B writes its last records when it ends
        wandb.teardown()
        yield folder, evaluation.results


def test_wandb_offline(logged):
    folder, results = logged
    (offline,) = (folder / "wandb").glob("offline-run-*")
    files = offline / "files" / "media"
    (image,) = (files / "images").glob("media/samples_*.png")
    assert np.array_equal(np.asarray(Image.open(image)), np.asarray(Image.open(folder / "samples" / "000002.png")))
    tables = sorted((files / "table" / "tables").glob("Prompts_*.table.json"))
    content = json.loads(tables[-1].read_text())
    assert content["columns"] == list(results.table("Prompts").head)
    assert [tuple(row) for row in content["data"]] in (
        results.table("Prompts").rows,
        [tuple(row) for row in json.loads(tables[0].read_text())["data"]],
    )
    assert len(tables) == 2


def test_wandb_holds_the_numbers(logged):
    folder, results = logged
    found = {key: value for row in rows(folder) for key, value in row.items()}
    assert found[KEY] == pytest.approx(results.metrics()[KEY])
    assert found["trainer/global_step"] == 2


def test_everything_of_one_update_has_one_step(logged):
    folder, _ = logged
    steps = {name: [row[STEP] for row in rows(folder) if name in row] for name in ("reward/mean", KEY, "media/samples")}
    assert steps == {"reward/mean": [1, 2], KEY: [0, 1, 2], "media/samples": [2]}
    # so that it can be plotted against what it has cost
    assert all("reward_calls" in row for row in rows(folder) if KEY in row)


def test_no_name_stands_for_numbers_and_for_media(logged):
    folder, _ = logged
    kinds = {}
    for row in rows(folder):
        for name, value in row.items():
            kinds.setdefault(name, set()).add(isinstance(value, dict))
    assert all(len(kind) == 1 for kind in kinds.values())
    media = {name for name, kind in kinds.items() if kind == {True}}
    assert media == {"media/samples", "tables/Prompts", "tables/samples/Prompts"}


def test_a_table_has_the_samples_of_both_models(logged):
    folder, _ = logged
    (artifact,) = [r.artifact for r in read(folder) if r.HasField("artifact") and "samples" in r.artifact.name]
    files = {content.path: Path(content.local_path) for content in artifact.manifest.contents}
    table = json.loads(files["tables/samples/Prompts.table.json"].read_text())
    assert table["columns"] == ["prompt", "base", "aligned"]
    assert [row[0] for row in table["data"]] == ["zero", "one"]
    pixels = [np.asarray(Image.open(files[image["path"]])) for row in table["data"] for image in row[1:]]
    assert all(image.shape == (2, 2, 3) for image in pixels)
    assert any((base != aligned).any() for base, aligned in zip(pixels[::2], pixels[1::2], strict=True))


def test_tensorboard(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, results = logged
    events = EventAccumulator(str(folder / "board" / "version_0"), {"images": 0, "tensors": 0, "scalars": 0}).Reload()
    assert [event.step for event in events.Scalars(KEY)] == [0, 1, 2]
    assert events.Scalars(KEY)[-1].value == pytest.approx(results.metrics()[KEY])
    (image,) = events.Images("media/samples")
    written = Image.open(folder / "samples" / "000002.png")
    assert (image.width, image.height, image.step) == (*written.size, 2)
    texts = events.Tensors("tables/Prompts/text_summary")
    assert [text.step for text in texts] == [1, 2]
    assert "| Prompts: 3 prompts × 1 sample" in texts[-1].tensor_proto.string_val[0].decode()


def test_csv_with_the_rest_in_files_beside_it(logged):
    folder, results = logged
    place = folder / "table" / "version_0"
    rows = [row for row in csv.DictReader((place / "metrics.csv").open()) if row[KEY]]
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert float(rows[-1][KEY]) == pytest.approx(results.metrics()[KEY])
    assert (place / "media" / "samples_000002.png").read_bytes() == (folder / "samples" / "000002.png").read_bytes()
    table = list(csv.reader((place / "media" / "tables" / "Prompts_000002.csv").open()))
    shown = results.table("Prompts")
    assert [tuple(line) for line in table] == [shown.head, *shown.rows]


def test_a_logger_of_another_kind_can_be_taught():
    class Mine(DummyLogger):
        def __init__(self):
            super().__init__()
            self.shown = []

    logger = Mine()
    show_image(logger, "samples", Image.new("RGB", (2, 2)), 0)
    assert logger.shown == []
    show_table.register(Mine, lambda logger, name, table, step: logger.shown.append((name, table, step)))
    table = Table("numbers", ("a",), [])
    show_table(logger, "numbers", table, 3)
    assert logger.shown == [("numbers", table, 3)]
