"""Numbers, images and tables reach every logger that can show them, and come back as they were."""

import csv
import json
import struct

import numpy as np
import pytest
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image

from rlr.callbacks import Evaluation, SampleGrid, show_image, show_table
from rlr.data import Prompts
from rlr.evaluation.report import Table
from tests.callbacks.every_logger import every_logger
from tests.modules.toy import WORDS, align, run

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
        yield folder, evaluation.results


def test_wandb_offline(logged):
    folder, results = logged
    (offline,) = (folder / "wandb").glob("offline-run-*")
    files = offline / "files" / "media"
    (image,) = (files / "images").glob("samples_*.png")
    assert np.array_equal(np.asarray(Image.open(image)), np.asarray(Image.open(folder / "samples" / "000002.png")))
    tables = sorted((files / "table" / "evaluation").glob("Prompts_*.table.json"))
    content = json.loads(tables[-1].read_text())
    assert content["columns"] == list(results.table("Prompts").head)
    assert [tuple(row) for row in content["data"]] in (
        results.table("Prompts").rows,
        [tuple(row) for row in json.loads(tables[0].read_text())["data"]],
    )
    assert len(tables) == 2


def records(content, block=32768):
    """The records of a log in LevelDB's format: pieces of checksum, length, kind (whole, first, middle, last), data."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def test_wandb_holds_the_numbers(logged):
    """Read from the file that `wandb sync` would send."""
    folder, results = logged
    from wandb.proto import wandb_internal_pb2

    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    found = {}
    for data in records(path.read_bytes()):
        for item in wandb_internal_pb2.Record.FromString(data).history.item:
            found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    assert found[KEY] == pytest.approx(results.metrics()[KEY])
    assert found["trainer/global_step"] == 2


def test_tensorboard(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, results = logged
    events = EventAccumulator(str(folder / "board" / "version_0"), {"images": 0, "tensors": 0, "scalars": 0}).Reload()
    assert [event.step for event in events.Scalars(KEY)] == [0, 1, 2]
    assert events.Scalars(KEY)[-1].value == pytest.approx(results.metrics()[KEY])
    (image,) = events.Images("samples")
    written = Image.open(folder / "samples" / "000002.png")
    assert (image.width, image.height, image.step) == (*written.size, 2)
    texts = events.Tensors("evaluation/Prompts/text_summary")
    assert [text.step for text in texts] == [1, 2]
    assert "| Prompts: 3 prompts × 1 sample" in texts[-1].tensor_proto.string_val[0].decode()


def test_csv_with_the_rest_in_files_beside_it(logged):
    folder, results = logged
    place = folder / "table" / "version_0"
    rows = [row for row in csv.DictReader((place / "metrics.csv").open()) if row[KEY]]
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert float(rows[-1][KEY]) == pytest.approx(results.metrics()[KEY])
    assert (place / "media" / "samples_000002.png").read_bytes() == (folder / "samples" / "000002.png").read_bytes()
    table = list(csv.reader((place / "media" / "evaluation" / "Prompts_000002.csv").open()))
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
