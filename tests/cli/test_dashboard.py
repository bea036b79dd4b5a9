"""A dashboard shows all that a run has logged, and nothing else."""

import sys

import pytest

from rlr.cli.dashboard import __main__ as command
from rlr.cli.dashboard import workspace as adapter
from rlr.cli.dashboard.layout import NOT_SHOWN, REST, Gallery, Plot, Sheet, layout
from tests.callbacks.test_loggers import logged  # noqa: F401
from tests.callbacks.wandb_file import rows

KEYS = [
    *("reward/mean", "reward/std", "reward/HPSv2.1", "reward/HPSv2.1_x100", "val/reward", "val/HPSv2.1"),
    *(
        f"evaluation/{s}/{m}"
        for s in ("hpdv2", "animals")
        for m in ("HPSv2.1", "HPSv2.1_difference", "CLIPScore", "diversity")
    ),
    *("kl/path", "gradient/total", "gradient/first_order", "cosine/first_order_half_order", "weight/first_order"),
    *(
        "explained/3",
        "group/std",
        "seconds/rollout",
        "memory_mib/rollout",
        "samples",
        "samples_per_second",
        "reward_calls",
    ),
    *("media/samples", "tables/hpdv2", "tables/samples/hpdv2", "vbench/dynamic_degree", "ppo/clip_fraction"),
    *("trainer/global_step", "epoch", "updates", "_runtime", "_step"),
]


def plots(sections):
    return [panel for section in sections for panel in section.panels if isinstance(panel, Plot)]


def test_every_plot_of_a_run_has_points(logged):  # noqa: F811
    """Read from the offline file: a point needs both of its coordinates in one row."""
    found = rows(logged[0])
    keys = {key for row in found for key in row}
    sections = layout(keys)
    empty = [
        (p.x, key) for p in plots(sections) for key in p.keys if not any({p.x, key} <= row.keys() for row in found)
    ]
    assert not empty
    shown = {key for section in sections for key in section.keys}
    assert shown == {key for key in keys if not key.startswith("_") and key not in NOT_SHOWN}
    assert REST not in [section.name for section in sections]
    # a plot of what a run has not logged would be found
    sabotaged = plots(layout([*keys, "reward/other"]))
    assert any(not any({p.x, key} <= row.keys() for row in found) for p in sabotaged for key in p.keys)


def test_every_group_of_names_has_its_section():
    sections = {section.name: section for section in layout(KEYS)}
    assert sections[REST].keys == {"ppo/clip_fraction"}
    assert set().union(*(section.keys for section in sections.values())) == set(KEYS) - {
        "_runtime",
        "_step",
        *NOT_SHOWN,
    }
    assert {p.x for p in plots([sections["Reward"]])} == {"trainer/global_step", "_runtime", "reward_calls"}
    # rows of the validation have no count of reward calls
    assert not any(
        key.startswith("val/") for p in plots([sections["Reward"]]) if p.x == "reward_calls" for key in p.keys
    )
    assert {"evaluation/hpdv2/diversity", "kl/path"} <= sections["Divergence and diversity"].keys
    kinds = [type(panel) for panel in sections["Samples"].panels]
    assert kinds == [Gallery, Sheet, Sheet]


def test_gold_is_plotted_against_the_trained_reward_on_the_same_prompts():
    (section,) = [section for section in layout(KEYS) if section.name == "Gold against proxy"]
    pairs = {(panel.x, *panel.keys) for panel in section.panels}
    assert ("evaluation/hpdv2/HPSv2.1", "evaluation/hpdv2/CLIPScore") in pairs
    assert all(x.rpartition("/")[0] == key.rpartition("/")[0] and x != key for x, key in pairs)
    assert "Gold against proxy" not in [section.name for section in layout(["reward/mean", "evaluation/a/CLIPScore"])]


def test_without_names_there_is_no_section():
    assert layout([]) == []
    assert layout(["_step", "epoch"]) == []


def test_workspace_and_report_hold_the_layout(monkeypatch):
    pytest.importorskip("wandb_workspaces")
    sections = layout(KEYS)
    shown = {key for section in sections for key in section.keys}
    made = adapter.workspace(sections, "me", "mine", grouped=True)._to_model().model_dump_json(by_alias=True)
    report = adapter.report(sections, "me", "mine", grouped=True)
    grids = [panel._to_model() for block in report.blocks for panel in getattr(block, "panels", [])]
    written = "".join(panel.model_dump_json(by_alias=True) for panel in grids)
    for key in shown:
        assert f'"{key}"' in made
        assert f'"{key}"' in written
    assert '"section":"run","name":"group"' in made
    places = [(panel.layout.x, panel.layout.y) for panel in report.blocks[3].panels]
    assert len(places) == len(set(places))


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert command.main(["--entity=me"]) == 2
    stated = capsys.readouterr().err
    assert "wandb-workspaces" in stated
    assert "pip install" in stated
    assert stated.count("\n") == 1


def test_a_project_without_runs_is_named(monkeypatch, capsys):
    import wandb

    class Api:
        def runs(self, path):
            return []

    monkeypatch.setattr(wandb, "Api", Api)
    assert command.main(["--entity=me", "--project=mine", "--print"]) == 2
    assert "the project me/mine has no run that has logged anything" in capsys.readouterr().err
