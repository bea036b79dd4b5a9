"""No prompt is cut or swallowed in any text format; what cannot be read is reported with its file and line."""

import csv
import io
import json
import re

import pytest

from rlr.data import DCoT, PromptFile, Prompts, StageFile, Templates
from rlr.data.cleaning import fold, texts
from rlr.data.prompt_file import read
from rlr.data.staged.stages import Written, format_stages, read_stages

INSIDE = ["\u2028", "\u2029", "\u0085", "\u001c", "\u001d", "\u001e", "\u000b", "\u000c", "\u00a0", "\u3000", "\ufeff"]
"""Characters at which :meth:`str.splitlines` ends a line, or :meth:`str.split` a word."""

PROMPTS = [
    *(f"a lamp{sign}by the window, {number}" for number, sign in enumerate(INSIDE)),
    'a 12" record',
    '"quoted"',
    'a, b and "c"',
    "it's 5 o'clock",
    "猫 👩‍🎨 é",
    "\\u2028 \\n as letters",
    "x" * 200_000,
]


def format_csv(prompts):
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerows([["id", "prompt", "note"], *([k, prompt, "n,o"] for k, prompt in enumerate(prompts))])
    return buffer.getvalue()


FORMATS = {
    "p.txt": lambda prompts: "".join(f"{prompt}\n" for prompt in prompts),
    "crlf.txt": lambda prompts: "".join(f"{prompt}\r\n" for prompt in prompts),
    "p.jsonl": lambda prompts: "".join(json.dumps({"prompt": p}, ensure_ascii=False) + "\n" for p in prompts),
    "escaped.jsonl": lambda prompts: "\r\n".join(json.dumps(p) for p in prompts),
    "p.csv": format_csv,
    "p.CSV": lambda prompts: format_csv(prompts).replace("\r\n", "\n"),
}


def write(path, text):
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_prompt_is_read_as_it_was_written(tmp_path, name):
    assert texts(read(write(tmp_path / name, FORMATS[name](PROMPTS)))) == PROMPTS


@pytest.mark.parametrize("name", ["p.jsonl", "escaped.jsonl", "p.csv", "p.CSV"])
def test_a_format_with_quotes_holds_line_breaks(tmp_path, name, recwarn):
    prompts = ["a cat\nasleep", "a dog\r\n\nawake", "a cow"]
    written = [p.replace("\r\n", "\n") for p in prompts] if name == "p.CSV" else prompts
    assert texts(read(write(tmp_path / name, FORMATS[name](prompts)))) == written
    # where it may be a mistake, it is reported
    stated = [str(warning.message) for warning in recwarn]
    assert [f"2 prompts of {tmp_path / name} contain line breaks, first in line 2: 'a cat" in t for t in stated] == (
        [True] if "csv" in name.lower() else []
    )


@pytest.mark.parametrize("name", FORMATS)
def test_python_s_csv_and_ours_agree_on_lines(tmp_path, name):
    found = read(write(tmp_path / name, FORMATS[name](["a", "b", "c"])))
    first = 2 if "csv" in name.lower() else 1
    assert [entry.number for entry in found] == [first, first + 1, first + 2]


def test_marks_within_joined_files_are_no_part_of_a_prompt(tmp_path):
    assert texts(read(write(tmp_path / "p.txt", "\ufeffa cat\n \ufeff a dog\n\ufeff\na cat"))) == ["a cat", "a dog"]


OPEN = 'id,prompt\n1,a 12" vinyl record\n2,"starry night, by the sea\n3,a dog\n4,a horse\n5,"a bird"\n6,a lamp\n'


@pytest.mark.parametrize(
    ("name", "text", "stated"),
    [
        ("p.csv", OPEN, r"line 3 of \S+p.csv opens a quote that is not closed"),
        ("p.csv", OPEN.replace("\n", "\r\n"), r"line 3 of \S+p.csv opens a quote"),
        ("p.csv", 'prompt\n"abc\ndef', r"line 2 of \S+p.csv opens a quote"),
        ("p.csv", 'id,prompt\n"1\n2","a cat\n3,a dog\n', r"line 3 of \S+p.csv opens a quote"),
        ("p.csv", 'prompt\n"a cat" \n', r"line 2 of \S+p.csv opens a quote"),
        ("p.csv", 'prompt\n"' + "x" * 200_000, r"line 2 of \S+p.csv opens a quote"),
        ("p.csv", '"prompt\na cat\n', r"line 1 of \S+p.csv opens a quote"),
        ("p.csv", "id,prompt\n1,a cat\n2\n", r"line 3 of \S+p.csv has no field for the column 'prompt'; complete the row"),
        ("p.csv", "prompt,prompt\na,b\n", r"p.csv has 2 columns 'prompt'; rename all but one"),
        ("p.csv", "", r"p.csv has no column 'prompt' but no names"),
        ("p.txt", "a cat\na dog\ra cow\n", r"line 2 of \S+p.txt has a carriage return"),
        ("p.txt", "a cat\ra dog\ra cow\r", r"line 1 of \S+p.txt has a carriage return"),
        ("p.txt", "a cat\na\0dog\n", r"p.txt has a NUL character in line 2"),
        ("p.csv", "prompt\na\0dog\n", r"p.csv has a NUL character in line 2"),
        ("p.jsonl", '"a"\n"\\ud83d\\ude00 a happy cat \\ud83d"\n', r"line 2 of \S+p.jsonl has the lone surrogate U\+D83D at char"),
        ("p.jsonl", '{"prompt": "\\udc00"}', r"line 1 of \S+p.jsonl has the lone surrogate U\+DC00 at character 1 of its text; "),
        ("p.jsonl", '"\ud83d"', r"p.jsonl is not UTF-8: line 1 has the byte 0xed"),
        ("p.txt", "a\n\ud83d", r"p.txt is not UTF-8: line 2 has the byte 0xed"),
        ("p.jsonl", '"a"\n' + "[" * 100_000, r"line 2 of \S+p.jsonl is not JSON \(it is nested too deeply\)"),
        ("p.jsonl", '{"prompt": "a", "x": ' + "9" * 5000 + "}", r"line 1 of \S+p.jsonl is not JSON \(Exceeds the limit"),
        ("p.jsonl", '{"prompt": "a", "prompt": "b"}', r"line 1 of \S+p.jsonl is not JSON \(the key 'prompt' is repeated"),
        ("p.jsonl", '"a" "b"', r"line 1 of \S+p.jsonl is not JSON \(Extra data at column 5\); write one object a line"),
        ("p.jsonl", '"a\nb"', r"line 1 of \S+p.jsonl is not JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_stated(tmp_path, name, text, stated):
    path = write(tmp_path / name, text)
    with pytest.raises(ValueError, match=stated) as error:
        PromptFile(train=str(path))
    assert len(str(error.value)) < 400


def test_utf_16_is_stated(tmp_path):
    for encoding, stated in (("utf-16", "is not UTF-8"), ("utf-16-le", "has a NUL character in line 1")):
        (tmp_path / "p.txt").write_bytes("a cat\n".encode(encoding))
        with pytest.raises(ValueError, match=stated):
            read(tmp_path / "p.txt")


# ---------------------------------------------------------------- lists and stages


def test_a_listed_prompt_that_is_no_text_is_stated_before_the_first_step():
    data = Prompts(["a", "b \ud83d"], val=["a"])
    with pytest.raises(ValueError, match="prompt 2 of the split 'train' of Prompts has the lone surrogate U"):
        data.train_dataloader()
    assert len(data.val_dataloader()) == 1
    with pytest.raises(ValueError, match="prompt 2 of the split 'train' of Prompts"):
        DCoT(data, Templates()).train_dataloader()


def test_stages_are_read_as_they_were_written(tmp_path):
    written = {prompt: Written((f"1 {prompt}", prompt), "model") for prompt in PROMPTS}
    path = write(tmp_path / "stages.jsonl", format_stages(written))
    assert read_stages(path) == written
    assert StageFile(str(path)).write([f" {PROMPTS[0]}\n"]) == [(f"1 {PROMPTS[0]}", PROMPTS[0])]
    write(path, '{"prompt": "a", "stages": ["b"]}\n{"prompt": "c", "stages": ["\\ud83d"]}')
    with pytest.raises(ValueError, match=r"line 2 of \S+stages.jsonl has the lone surrogate"):
        StageFile(str(path))


def test_messages_cut_long_prompts(tmp_path):
    path = write(tmp_path / "stages.jsonl", '{"prompt": "a", "stages": ["b"]}')
    with pytest.raises(ValueError, match=re.escape(f"'{'x' * 79}…'; add a line")):
        StageFile(str(path)).write(["x" * 104_000])
    train, val = (write(tmp_path / f"{name}.txt", "x" * 104_000) for name in ("train", "val"))
    with pytest.raises(ValueError, match=re.escape(f"('{'x' * 79}…'), and no prompt")):
        PromptFile(train=str(train), val=str(val))


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize("other", ["A Cat", " a  cat", "a\u00a0cat", "a\tcat", "ａ cat", "A CAT"])
def test_prompts_that_a_text_encoder_reads_alike_are_the_same(tmp_path, other):
    train, val = write(tmp_path / "train.txt", "a dog\na cat\n"), write(tmp_path / "val.txt", f"{other}\n")
    with pytest.raises(ValueError, match=r"line 1 of \S+val.txt repeats line 2 of \S+train.txt \('.*' and 'a cat'\)"):
        PromptFile(train=str(train), val=str(val))


def test_prompts_that_it_reads_apart_are_others():
    assert fold("É café") == fold("e\u0301 CAFE\u0301".title()) == "é café"
    assert len({fold(prompt) for prompt in ("a cat", "a cat.", "cat", "acat", "a cát")}) == 5
