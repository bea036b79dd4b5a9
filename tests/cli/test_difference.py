"""What a command changes of its first config."""

import pytest

from rlr.cli import main


@pytest.fixture
def stated(capsys):
    """Returns a function that returns what `--diff` prints."""

    def lines(*words):
        with pytest.raises(SystemExit) as end:
            main(["fit", *words, "--diff"])
        assert end.value.code == 0
        return capsys.readouterr().out.splitlines()

    return lines


def test_nothing_differs_from_the_config_itself(config, stated):
    path = config()
    assert stated(f"--config={path}") == [f"nothing differs from {path}"]


def test_values_classes_and_arguments_that_differ(config, stated, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("model: {init_args: {optimization: {clip_norm: null}}}\n")
    found = stated(
        f"--config={config()}", "--config", str(other), "--model.estimator=FirstOrder", "--trainer.max_steps=7"
    )
    assert found[0] == "trainer.max_steps: 3 → 7"
    assert "model.estimator: rlr.RLR → rlr.FirstOrder" in found
    # the arguments of the old class are gone
    assert "model.estimator.length: 2 → –" in found
    assert all(
        line.split(":")[0].startswith(("trainer.max_steps", "model.estimator", "model.optimization")) for line in found
    )


def test_mistakes(config, capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--diff"])
    assert end.value.code == 2
    assert "--diff: expected a config to compare with, found none" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["fit", f"--config={config()}", "--model.lr=1", "--diff"])
    assert end.value.code == 2
    assert "ImageAlignment has no argument 'lr'" in capsys.readouterr().err
