import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlr.data import PromptFile, Prompts, WithoutWords
from rlr.data.cleaning import texts
from rlr.data.prompt_file import read as entries
from rlr.toy.data import WorldPrompts
from rlr.toy.world.caption import parse


def read(path: Path, column: str = "prompt") -> list[str]:
    return texts(entries(path, column))


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_text_lines(tmp_path):
    text = "\ufeffa cat\n\n   a dog in a café \t\r\n\n"
    assert read(write(tmp_path / "p.txt", text)) == ["a cat", "a dog in a café"]


def test_json_lines(tmp_path):
    text = '{"prompt": "a cat", "id": 1}\n\n"a dog"\n{"prompt": " 猫 "}\n'
    assert read(write(tmp_path / "p.jsonl", text)) == ["a cat", "a dog", "猫"]
    assert read(write(tmp_path / "q.jsonl", '{"text": "a cat"}'), "text") == ["a cat"]


def test_csv(tmp_path):
    text = 'id,prompt\n1,"a cat, asleep"\n2,\n3,"a dog\nand a bone"\n'
    assert read(write(tmp_path / "p.csv", text)) == ["a cat, asleep", "a dog\nand a bone"]


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.csv"])
def test_a_prompt_is_read_once_and_its_line_is_known(tmp_path, name):
    lines = ["prompt", "a cat", "", "a dog", " a cat"]
    text = "\n".join(json.dumps(line) if name == "p.jsonl" and line else line for line in lines)
    found = entries(write(tmp_path / name, text))[-2:]
    assert [(e.prompt, e.number) for e in found] == [("a cat", 2), ("a dog", 4)]
    assert found[1].place == f"line 4 of {tmp_path / name}"


@pytest.mark.parametrize(
    ("name", "text", "stated"),
    [
        ("p.txt", "", "p.txt is empty; write at least one prompt"),
        ("p.txt", "\n  \n", "p.txt is empty"),
        ("p.csv", "prompt\n", "p.csv is empty"),
        ("p.csv", "id,text\n1,a cat\n", "p.csv has no column 'prompt' but id, text; set column to one of these"),
        (
            "p.csv",
            "id,prompt\n1,a cat\n2,a dog, asleep\n",
            "line 3 of .*p.csv has more fields than there are columns; put",
        ),
        ("p.jsonl", '"a"\n{oops}\n', "line 2 of .*p.jsonl is not JSON"),
        ("p.jsonl", '{"text": "a"}\n', "line 1 of .*p.jsonl has no text under 'prompt'"),
        ("p.jsonl", '{"prompt": 3}\n', "line 1 of .*p.jsonl has no text under 'prompt'"),
        (
            "p.md",
            "a cat\n",
            r"p.md: expected a prompt file with the suffix .txt, .jsonl, .csv, .parquet, found .md; set",
        ),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, name, text, stated):
    with pytest.raises(ValueError, match=stated):
        PromptFile(train=str(write(tmp_path / name, text)))


@pytest.mark.parametrize("name", ["none.txt", "none.parquet"])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"there is no prompt file .*{name} .*; check the path"):
        PromptFile(train=str(tmp_path / name))


def write_parquet(path: Path, prompts: list[str | None], column: str = "prompt") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # another column, of another type
    pq.write_table(pa.table({"id": list(range(len(prompts))), column: prompts}), path)
    return path


def test_parquet(tmp_path):
    file = write_parquet(tmp_path / "p.parquet", ["a cat", None, " a dog ", "a cat"])
    assert [(e.prompt, e.place) for e in entries(file)] == [
        ("a cat", f"row 1 of {file}"),
        ("a dog", f"row 3 of {file}"),
    ]
    with pytest.raises(ValueError, match=r"p.parquet has no column 'text' but id, prompt; set column to one of these"):
        PromptFile(train=str(file), column="text")
    with pytest.raises(ValueError, match=r"the column 'id' of .*p.parquet holds int64 .* where text should be"):
        PromptFile(train=str(file), column="id")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"p.parquet is damaged or cut short"):
        PromptFile(train=str(file))


def test_files_of_a_data_set_on_the_hub(tmp_path, monkeypatch):
    asked = []

    def download(name, **options):
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", ["a dog", "a cat"], "caption")
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", ["a cat", "a cow"], "caption")
    write(tmp_path / "val.csv", "caption\na horse\n")
    data = PromptFile(
        train="hf://datasets/me/my.set/data/train-*.parquet", val="hf://datasets/me/my.set@v2/val.csv", column="caption"
    )
    assert [data.read(split) for split in ("train", "val")] == [["a cat", "a cow", "a dog"], ["a horse"]]
    assert asked == [
        ("me/my.set", {"repo_type": "dataset", "revision": None, "allow_patterns": ["data/train-*.parquet"]}),
        ("me/my.set", {"repo_type": "dataset", "revision": "v2", "allow_patterns": ["val.csv"]}),
    ]
    with pytest.raises(FileNotFoundError, match=r"hf://datasets/me/my.set/no.txt: expected files of that name"):
        PromptFile(train="hf://datasets/me/my.set/no.txt")


def test_a_data_set_without_a_file_is_a_sentence():
    stated = r"me/set: expected a prompt file with the suffix .*, found none; set .* hf://datasets/OWNER/NAME/FILE"
    with pytest.raises(ValueError, match=stated):
        PromptFile(train="me/set")


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("a cat\na café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.txt is not UTF-8: line 2 has the byte 0xe9 \(byte 11 of the file\)"):
        read(path)


def test_splits_of_files(tmp_path):
    train, val = (write(tmp_path / f"{name}.txt", f"{name}\n") for name in ("train", "val"))
    data = PromptFile(train=str(train), val=str(val))
    assert [data.read(split) for split in ("train", "val", "test", "predict")] == [["train"], *3 * [["val"]]]
    data = PromptFile(train=str(train), predict=str(val))
    assert [data.read(split) for split in ("val", "test", "predict")] == [[], [], ["val"]]
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match=r"PromptFile has no prompts for 'test'; set data.init_args.test"):
        data.test_dataloader()


def test_no_prompt_is_in_two_files(tmp_path):
    train = write(tmp_path / "train.txt", "a cat\na dog\n\na horse\n")
    val = write(tmp_path / "val.csv", "prompt\na cow\n a horse \n")
    stated = (
        r"line 3 of .*val.csv repeats line 4 of .*train.txt \('a horse'\), and no prompt may be in two splits; delete"
    )
    for split in ("val", "test", "predict"):
        with pytest.raises(ValueError, match=stated):
            PromptFile(train=str(train), **{split: str(val)})
    with pytest.raises(ValueError, match=r"train.txt repeats line 3 of .*val.csv"):
        PromptFile(val=str(val), test=str(train))


def test_splits_that_may_share_prompts(tmp_path):
    train, val = (write(tmp_path / f"{name}.txt", f"{name}\nboth\n") for name in ("train", "val"))
    data = PromptFile(train=str(train), val=str(train))
    assert data.read("train") == data.read("val")
    data = PromptFile(val=str(train), predict=str(val))
    assert (data.read("test"), data.read("predict")) == (["train", "both"], ["val", "both"])


def test_a_file_is_filtered(tmp_path):
    train = write(tmp_path / "train.txt", "a cat\na nude\n")
    assert PromptFile(train=str(train)).read("train") == ["a cat", "a nude"]
    assert PromptFile(train=str(train), keep=WithoutWords()).read("train") == ["a cat"]
    with pytest.raises(
        ValueError, match=r"WithoutWords keeps none of the 2 prompts of the split 'train' of PromptFile"
    ):
        PromptFile(train=str(train), keep=WithoutWords(["a"])).train_dataloader()


def test_listed_prompts():
    data = Prompts(["a", "b"], val=["c"], batch_size=2, samples_per_prompt=2, evaluation_samples=3)
    assert next(iter(data.train_dataloader())).prompts in (["a", "a"], ["b", "b"])
    assert [p for batch in data.predict_dataloader() for p in batch.prompts] == ["c", "c", "c"]


@pytest.mark.parametrize(
    ("settings", "stated"),
    [
        ({"batch_size": 0}, "are at least 1, and 0, 1 and 1 were given"),
        ({"batch_size": 4, "samples_per_prompt": 3}, "does not hold whole groups of samples_per_prompt=3"),
    ],
)
def test_impossible_batches(settings, stated):
    with pytest.raises(ValueError, match=stated):
        Prompts(["a"], **settings)


def test_prompts_of_the_built_in_world():
    data = WorldPrompts(train=200, held_out=30, seed=5)
    train, held_out = data.read("train"), data.read("val")
    assert (len(train), len(held_out)) == (200, 30)
    assert not set(train) & set(held_out)
    assert sum(parse(prompt).novel for prompt in held_out) == 10
    assert held_out == data.read("test") == data.read("predict")
    assert train != WorldPrompts(train=200, seed=6).read("train")


def test_a_filter_of_the_built_in_world_draws_on_until_there_are_enough():
    data = WorldPrompts(train=50, held_out=20, seed=5, keep=WithoutWords(["red", "on"]))
    everything = WorldPrompts(train=5000, held_out=5000, seed=5)
    for split, n in (("train", 50), ("val", 20)):
        kept = [prompt for prompt in everything.read(split) if not {"red", "on"} & set(prompt.split())]
        assert data.read(split) == kept[:n]
    with pytest.raises(ValueError, match="WithoutWords keeps 0 of 2000 captions of the built-in world, expected 2"):
        WorldPrompts(train=2, held_out=2, keep=WithoutWords(["a", "two", "three", "four", "an"]))
