import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlr.data import PickAPic, WithoutWords
from tests.data.fixtures import FOLDER, NO_PICTURES, PICTURES
from tests.fixtures.data.make import COLUMNS, NO_IMAGES, make

FIRST = "data/train-00000-of-00002-0123456789abcdef.parquet"
SECOND = "data/train-00001-of-00002-0123456789abcdef.parquet"
TRAIN = [
    "a cat in a hat",
    "a lighthouse at dusk",
    "a nude statue of white marble",
    "a dragon made of glass",
    "ein alter Bär, schlafend",
]


@pytest.fixture
def folder(tmp_path):
    """A copy to damage."""
    return shutil.copytree(PICTURES, tmp_path / "pickapic")


def test_the_fixtures_are_what_their_script_writes(tmp_path):
    make(tmp_path)
    files = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.suffix in (".json", ".parquet"))
    assert len(files) == 13
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for file in files:
        if file.suffix == ".json":
            assert (tmp_path / file).read_bytes() == (FOLDER / file).read_bytes()
        else:
            assert pq.read_table(tmp_path / file).equals(pq.read_table(FOLDER / file))


@pytest.mark.parametrize(("source", "columns"), [(PICTURES, COLUMNS), (NO_PICTURES, NO_IMAGES)])
def test_captions_come_once_in_the_order_of_shards_and_rows(source, columns):
    for path in source.rglob("*.parquet"):
        assert (
            dict(zip(*(getattr(pq.read_schema(path), field) for field in ("names", "types")), strict=True)) == columns
        )
    data = PickAPic(str(source))
    assert data.read("train") == TRAIN
    assert data.read("val") == ["a bowl of oranges", "the moon over a harbour"]
    assert data.read("test") == data.read("predict") == ["a red bicycle", "two owls on a branch", "a naked mole-rat"]


def test_a_filter_is_for_every_split():
    data = PickAPic(str(PICTURES), keep=WithoutWords())
    assert data.read("train") == [prompt for prompt in TRAIN if "nude" not in prompt]
    assert data.read("test") == ["a red bicycle", "two owls on a branch"]


def test_files_may_stand_in_the_folder_itself(folder):
    assert PickAPic(str(folder / "data")).read("train") == TRAIN


def test_names_need_no_numbers(folder):
    (folder / FIRST).rename(folder / "data" / "train-a.parquet")
    (folder / SECOND).rename(folder / "data" / "train-b.parquet")
    assert PickAPic(str(folder)).read("train") == TRAIN


def test_strings_of_either_kind(folder):
    path = folder / FIRST
    table = pq.read_table(path)
    at = table.column_names.index("caption")
    pq.write_table(table.set_column(at, "caption", table["caption"].cast(pa.large_string())), path)
    assert PickAPic(str(folder)).read("train") == TRAIN


def column(path, name, group):
    """Where the pages of a column stand in a file: first byte and length."""
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        found = file.metadata.row_group(group).column(names.index(name))
    start = found.dictionary_page_offset or found.data_page_offset
    return start, found.total_compressed_size


def spoil(path, name, group):
    start, length = column(path, name, group)
    data = bytearray(path.read_bytes())
    data[start : start + length] = b"\xff" * length
    path.write_bytes(data)


def test_pictures_are_not_read(folder):
    for group in (0, 1):
        spoil(folder / FIRST, "jpg_0", group)
    with pytest.raises((pa.ArrowException, OSError)):
        pq.read_table(folder / FIRST)
    assert PickAPic(str(folder)).read("train") == TRAIN


@pytest.mark.parametrize(("group", "row"), [(0, 1), (1, 5)])
def test_a_damaged_page_is_stated_with_its_first_row(folder, group, row):
    spoil(folder / FIRST, "caption", group)
    with pytest.raises(
        ValueError, match=rf"{FIRST} is damaged or cut short: nothing can be read from row {row} on; down"
    ):
        PickAPic(str(folder))


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_file_that_is_cut_short(folder, part):
    data = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(data[: int(part * len(data))])
    with pytest.raises(ValueError, match=rf"{SECOND} is damaged or cut short: nothing can be read from row 1 on"):
        PickAPic(str(folder))


def test_a_column_that_is_missing(folder):
    table = pq.read_table(folder / FIRST).drop_columns(["caption"])
    pq.write_table(table, folder / FIRST)
    with pytest.raises(
        ValueError, match=rf"{FIRST} has no column 'caption' but are_different, best_image_uid, created_at"
    ):
        PickAPic(str(folder))


def test_a_column_of_another_type(folder):
    table = pq.read_table(folder / FIRST)
    numbers = pa.array(range(table.num_rows))
    pq.write_table(table.set_column(table.column_names.index("caption"), "caption", numbers), folder / FIRST)
    with pytest.raises(
        ValueError, match=rf"the column 'caption' of .*{FIRST} holds int64 from row 1 on, where text should"
    ):
        PickAPic(str(folder))


def test_a_missing_shard(folder):
    (folder / FIRST).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"data holds shards 1 of train, and .* says that there are 2, from 0 on"
    ):
        PickAPic(str(folder))
    (folder / SECOND).unlink()
    with pytest.raises(FileNotFoundError, match=r"pickapic holds no train-\*.parquet, nor does data/ in it; download"):
        PickAPic(str(folder))


def test_a_shard_of_two_versions(folder):
    shutil.copy(folder / FIRST, folder / FIRST.replace("0123456789abcdef", "fedcba9876543210"))
    with pytest.raises(
        FileNotFoundError, match=r"holds shards 0, 0, 1 of train, .* there are 2, from 0 on; make them com"
    ):
        PickAPic(str(folder))


@pytest.mark.parametrize("source", ["yuvalkirstain/pickapic_v1_no_images", "no/such/folder"])
def test_what_to_give_where_there_is_no_network(source, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    stated = rf"found '{source}', which is neither; set a folder that contains data/train"
    with pytest.raises(FileNotFoundError, match=stated):
        PickAPic(source)


def test_only_the_three_splits_are_downloaded(monkeypatch):
    asked = {}

    def download(source, **settings):
        asked.update(settings, source=source)
        return str(NO_PICTURES)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert PickAPic().read("train") == TRAIN
    assert asked == {
        "source": "yuvalkirstain/pickapic_v1_no_images",
        "repo_type": "dataset",
        "revision": None,
        "allow_patterns": ["data/train-*.parquet", "data/validation_unique-*.parquet", "data/test_unique-*.parquet"],
    }
