"""The command that compares estimators on the model, reward and data of a config."""

import csv
import json

import pytest
import torch

from rlr.cli import main
from tests.cli.conftest import root
from tests.cli.test_cli import fit

LARGER = ("  batch_size: 2", "  batch_size: 6")
FEW = "{one: FirstOrder, half: {class_path: HalfOrderRLR, init_args: {length: 1, segments: null, control: LookAhead}}}"


def analyze(config: str, tmp_path, *further: str):
    return main(["analyze", f"--config={config}", root(tmp_path), "--draws=4", *further])


def rows(path) -> dict[str, dict[str, str]]:
    return {row["estimator"]: row for row in csv.DictReader(path.open())}


def test_the_files_hold_what_the_terminal_shows(config, tmp_path, capsys):
    cli = analyze(config(LARGER), tmp_path, f"--estimators={FEW}")
    folder, shown = tmp_path / "out" / "analyze", capsys.readouterr().out
    found = rows(folder / "analysis.csv")
    assert list(found) == ["FirstOrder(all)", "FirstOrder(2)", "RLR of the config", "one", "half"]
    for name, row in found.items():
        assert name in shown
        assert float(row["peak_bytes"]) > 0
        assert float(row["seconds"]) > 0
    plain = json.loads((folder / "analysis.json").read_text())
    assert [row["name"] for row in plain["rows"]] == list(found)
    assert plain["rounds"] == 4
    assert [e["step"] for e in plain["explained"]] == [4, 3, 2, 1]
    assert (folder / "analysis.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "analysis.html").read_text()
    for sentence in cli.analyzed.advice:
        assert sentence in shown
    assert "data:image/png" in page
    assert str(folder / "analysis.html") in shown


def test_the_same_seed_gives_the_same_numbers(config, tmp_path):
    path, few = config(LARGER), f"--estimators={FEW}"
    one, other, third = (
        analyze(path, tmp_path, few, f"--seed={seed}", f"--folder={tmp_path / str(k)}").analyzed.survey
        for k, seed in enumerate((0, 0, 1))
    )
    assert [row.accuracy for row in one.rows] == [row.accuracy for row in other.rows]
    assert one.rows[2].accuracy != third.rows[2].accuracy


def test_the_weights_of_a_checkpoint_are_analyzed(config, tmp_path):
    path, few = config(LARGER), "--estimators={one: FirstOrder}"
    trained = fit(path, tmp_path).model
    checkpoint = tmp_path / "out" / "last.ckpt"
    before = analyze(path, tmp_path, few)
    after = analyze(path, tmp_path, few, f"--ckpt_path={checkpoint}")
    assert before.analyzed.survey.rows[1].accuracy != after.analyzed.survey.rows[1].accuracy
    assert after.analyzed.facts["weights"] == str(checkpoint)
    assert trained.progress.updates == 3


def test_a_reward_without_a_gradient_is_compared_by_likelihood_ratios(config, tmp_path):
    path = config(
        LARGER, ("toy.Level", "toy.Hard"), ("class_path: RLR", "class_path: HalfOrder"), ("        zeroth: false\n", "")
    )
    found = analyze(path, tmp_path).analyzed.survey
    # the config's own is a candidate, and is measured once
    assert [row.name for row in found.rows] == ["HalfOrder(1)", "HalfOrder(2) of the config", "ZerothOrder"]
    assert found.reference == "HalfOrder(1)"
    assert found.unbiased == ["HalfOrder(1)", "HalfOrder(2) of the config"]


STAND_IN = """    estimator:
      class_path: Sum
      init_args:
        estimators:
          - HalfOrder
          - class_path: HalfOrder
            init_args:
              length: 1
              control:
                class_path: LookAhead
                init_args:
                  value: tests.cli.attentive.Attentive
"""
OWN = """    estimator:
      class_path: RLR
      init_args:
        length: 2
        zeroth: false
"""


def test_a_value_is_measured_on_rollouts_that_it_has_not_learned_from(config, tmp_path):
    """The value raises where it is asked for a sample that it has learned from."""
    groups = ("batch_size: 2", "batch_size: 8\n    samples_per_prompt: 4")
    found = analyze(config(groups, ("toy.Level", "toy.Hard"), (OWN, STAND_IN)), tmp_path).analyzed
    names = [row.name for row in found.survey.rows]
    assert names == [
        "HalfOrder(1)",
        "Sum of the config",
        "HalfOrder(2)",
        "HalfOrder(2, groups)",
        "HalfOrder(2, antithetic)",
        "HalfOrder(2, Attentive)",
        "HalfOrderRLR(2, all, pathwise, Attentive)",
        "ZerothOrder",
    ]
    assert found.control == "the value of Attentive of a prediction of the clean sample in one step"
    why, variance, rest = found.advice
    assert why.startswith("16 draws of HalfOrder(1) do not determine the gradient")
    assert variance.startswith("Of the estimators that are unbiased by construction, use HalfOrder(2, Attentive)")
    assert rest.startswith(
        "Of Sum of the config, HalfOrderRLR(2, all, pathwise, Attentive), ZerothOrder nothing can be said"
    )
    # it has learned: what has not is constant, and explains nothing that is a number
    assert [e.step for e in found.explained] == [4, 3, 2, 1]
    assert all(0 <= e.share <= 1 for e in found.explained)


def test_where_memory_is_short_full_backpropagation_is_not_tried(config, tmp_path):
    path = config(LARGER)
    short = analyze(path, tmp_path, "--memory_gib=1e-6", "--estimators={one: FirstOrder}")
    assert short.analyzed.survey.reference == "HalfOrderRLR(1, all, LookAhead)"
    assert "No estimator fits into" in short.analyzed.advice[0] or not short.analyzed.survey.choices


def test_estimators_that_the_defaults_offer_may_not_fit(config, tmp_path):
    one = (
        ("class_path: RLR", "class_path: FirstOrder"),
        ("        length: 2\n        zeroth: false\n", "        steps: 1\n"),
    )
    found = analyze(config(("  batch_size: 2", "  batch_size: 1"), *one), tmp_path).analyzed.survey
    # a batch of one has no leave-one-out baseline
    assert {"HalfOrder(1)", "HalfOrderRLR(2, all)"} <= set(found.failures)
    assert [row.name for row in found.rows][:3] == ["FirstOrder(all)", "FirstOrder(2)", "FirstOrder(1) of the config"]


def test_mistakes(config, refuse, tmp_path):
    path = f"--config={config(LARGER)}"

    def stated(*options: str) -> str:
        return refuse(path, *options, command="analyze")

    assert "estimators.one: there is no Estimator 'FirstOrdre'; did you mean 'FirstOrder'?" in stated(
        "--estimators={one: FirstOrdre}"
    )
    assert "there is no option 'drwas'; did you mean 'draws'?" in stated("--drwas=3")
    assert "draws: expected int or null, got 'many'" in stated("--draws=many")
    assert "FirstOrder has no argument 'stps'; did you mean 'steps'?" in stated(
        "--estimators={one: {class_path: FirstOrder, init_args: {stps: 3}}}"
    )
    assert "draws: expected at least 4, got 2" in stated("--draws=2")
    assert "there is no checkpoint none.ckpt" in stated("--ckpt_path=none.ckpt", "--draws=4")
    assert "is longer than the chain of 4 steps" in stated(
        "--estimators={one: {class_path: FirstOrder, init_args: {steps: 9}}}", "--draws=4"
    )


def test_the_config_is_printed_with_the_options_of_the_command(config, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["analyze", f"--config={config()}", "--estimators={one: FirstOrder}", "--print_config"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert "minutes: 4.0" in printed
    assert "class_path: rlr.FirstOrder" in printed
    with pytest.raises(SystemExit):
        main(["analyze", "--help"])
    assert "--memory_gib" in capsys.readouterr().out
    assert torch.is_grad_enabled()
