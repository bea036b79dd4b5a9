"""A table, a file and a log say the same, whichever scale they say it on."""

import io
import json

import pytest
import torch

from rlr.evaluation import Measurement, Results
from rlr.evaluation.report import Table, digits, say


def results(base=True, update=7):
    scores = torch.tensor([[0.25, 0.27], [0.29, 0.31]])
    hps = Measurement("HPSv2.1", scores, scores - 0.02 if base else None, {"x100": 100.0})
    aes = Measurement("AES", 20 * scores, 19 * scores if base else None)
    return Results(update, {"hpdv2": [hps, aes]}, {"hpdv2": ["a", "b"]}, {"seed": 0})


def test_numbers_for_logs():
    metrics = results().metrics()
    assert metrics["evaluation/hpdv2/HPSv2.1"] == pytest.approx(0.28)
    assert metrics["evaluation/hpdv2/HPSv2.1_x100"] == pytest.approx(28)
    assert metrics["evaluation/hpdv2/HPSv2.1_x100_difference"] == pytest.approx(2, abs=1e-5)
    assert set(results(base=False).metrics()) == {f"evaluation/hpdv2/{n}" for n in ("HPSv2.1", "HPSv2.1_x100", "AES")}


def test_one_line_a_model_on_published_scales():
    assert results().summary().head == ("prompts", "model", "HPSv2.1 x100", "AES")
    assert results().summary().rows == [
        ("hpdv2", "base", "26.00", "5.320"),
        ("hpdv2", "aligned", "28.00", "5.600"),
    ]
    assert [row[1] for row in results(base=False).summary().rows] == ["aligned"]
    assert [row[1] for row in results(base=False, update=0).summary().rows] == ["base"]


def test_the_table_of_a_set():
    table = results().table("hpdv2")
    head, (raw, scaled, _) = table.head, table.rows
    assert head == ("hpdv2: 2 prompts × 2 samples", "base", "aligned", "difference", "95 % interval")
    assert raw == ("HPSv2.1", "0.2600", "0.2800", "+0.0200", "+0.0200 … +0.0200")
    assert scaled == ("HPSv2.1 x100", "26.00", "28.00", "+2.00", "+2.00 … +2.00")


def test_a_model_alone_has_a_score_and_its_interval():
    table = results(base=False).table("hpdv2")
    head, (raw, *_) = table.head, table.rows
    assert head == ("hpdv2: 2 prompts × 2 samples", "score", "95 % interval")
    assert raw == ("HPSv2.1", "0.2800", "0.2600 … 0.3000")


def test_files_agree():
    content = json.loads(results().json())
    row = content["sets"]["hpdv2"]["results"]["HPSv2.1 x100"]
    lines = results().csv().decode().splitlines()
    assert lines[0] == "prompts,measurement,number,samples,base,aligned,difference,low,high"
    assert lines[2].split(",")[:4] == ["hpdv2", "HPSv2.1 x100", "2", "2"]
    assert [float(cell) for cell in lines[2].split(",")[4:]] == list(row.values())
    assert (content["update"], content["seed"]) == (7, 0)
    alone = results(base=False).csv().decode().splitlines()[1].split(",")
    assert (alone[4], alone[6]) == ("", "")
    assert float(alone[5]) == pytest.approx(0.28)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (21.0512, "21.05"),
        (0.25123, "0.2512"),
        (0.0012345, "0.00123"),
        (120.04, "120.0"),
        (98765.4, "98765.4"),
        (0, "0.000"),
    ],
)
def test_four_digits(number, text):
    assert digits(number)(number, False) == text


def test_a_minus_is_a_minus():
    assert digits(2.0)(-0.5, True) == "−0.500"


def test_markdown_is_aligned_and_has_a_rule():
    lines = Table("", ("a", "b"), [("longer", "1")]).markdown().splitlines()
    assert lines == ["| a      |   b |", "|--------|----:|", "| longer |   1 |"]


def partly(missing):
    """Results with some scores of the base model not finite."""
    found = results()
    for row in missing:
        found.sets["hpdv2"][0].base[row] = float("nan")
    return found


def test_a_measurement_that_some_prompts_lack_says_so():
    found = partly([0])
    raw, scaled, other = found.table("hpdv2").rows
    # prompt 0 counts for neither model
    assert raw == ("HPSv2.1 (1 of 2)", "0.2800", "0.3000", "+0.0200", "–")
    assert (scaled[0], other[0]) == ("HPSv2.1 x100 (1 of 2)", "AES")
    assert [row[2] for row in found.summary().rows] == ["28.00", "30.00"]
    assert [line.split(",")[2] for line in found.csv().decode().splitlines()[1:]] == ["1", "1", "2"]
    assert json.loads(found.json())["sets"]["hpdv2"]["numbers"] == {"HPSv2.1": 1, "AES": 2}


def test_a_measurement_that_no_prompt_has_is_stated_and_stops_nothing():
    found = partly([0, 1])
    assert found.table("hpdv2").rows[0][:3] == ("HPSv2.1 (0 of 2)", "–", "–")
    assert found.metrics()["evaluation/hpdv2/AES"] == pytest.approx(5.6)
    assert "nan" not in found.text()
    # JSON has no NaN
    assert "NaN" not in found.json().decode()
    assert found.csv().decode().splitlines()[1].split(",")[2] == "0"


def test_a_cell_breaks_no_table():
    row = Table("", ("a", "b"), [("<b> | c\nd", "1")]).markdown().splitlines()[-1]
    assert row == "| &lt;b> \\| c d | 1 |".replace("| 1 |", "|   1 |")


# ---------------------------------------------------------------- stdout


def test_a_stdout_without_a_sign_gets_a_substitute(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    say("± − …")
    assert raw.getvalue() == "± ? ?\n".encode("latin-1")


class Closed(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


def test_a_closed_stdout_ends_nothing(monkeypatch):
    monkeypatch.setattr("sys.stdout", Closed())
    say("one")
    say("two")
