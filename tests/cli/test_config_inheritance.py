"""A config that names a base says what the base says, but for what it says itself."""

import pytest
import yaml

from rlr.cli.config_inheritance import merge, with_bases
from rlr.io.config_files import ConfigError


@pytest.fixture
def read(tmp_path):
    """Returns a function that writes files and returns what the last of them says."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return with_bases(yaml.safe_load(text), tmp_path)

    return write


def test_mappings_are_joined_and_all_else_is_replaced():
    under = {"a": {"x": 1, "y": [1, 2]}, "b": {"z": 1}, "c": 3}
    upper = {"a": {"y": [3]}, "b": 4, "d": {"w": 5}}
    assert merge(under, upper) == {"a": {"x": 1, "y": [3]}, "b": 4, "c": 3, "d": {"w": 5}}


def test_a_base_may_stand_anywhere_and_have_a_base(read):
    found = read(
        parts__inner="length: 4\nsteps: 1\n",
        parts__outer="class_path: A\ninit_args: {lr: 1, estimator: {base: inner.yaml, steps: 2}}\n",
        row="model: {base: parts/outer.yaml, init_args: {lr: 3}}\ndata: [{base: parts/inner.yaml}]\n",
    )
    estimator = {"length": 4, "steps": 2}
    assert found == {
        "model": {"class_path": "A", "init_args": {"lr": 3, "estimator": estimator}},
        "data": [{"length": 4, "steps": 1}],
    }


def test_an_argument_that_happens_to_be_called_base_is_none(read):
    assert read(row="model: {base: 3, other: {base: small}}\n") == {"model": {"base": 3, "other": {"base": "small"}}}


def test_the_parts_of_a_base_lie_beside_the_base(read, tmp_path):
    found = read(
        image__trainer="accelerator: cpu\nmax_epochs: -1\n",
        image__run="trainer: trainer.yaml\nevaluation: {trainer: trainer.yaml}\n",
        image__row="base: run.yaml\n",
        mine="base: image/row.yaml\ntrainer: {max_steps: 3}\n",
    )
    # what the config sets is merged into the part, and a part that is left alone keeps its place
    assert found == {
        "trainer": {"accelerator": "cpu", "max_epochs": -1, "max_steps": 3},
        "evaluation": {"trainer": f"{tmp_path}/image/trainer.yaml"},
    }


def test_a_part_takes_the_place_of_a_part_of_the_base(read):
    found = read(
        a="class_path: RLR\ninit_args: {length: 3}\n",
        b="class_path: RLR\ninit_args: {steps: 1}\n",
        run="estimator: a.yaml\n",
        mine="base: run.yaml\nestimator: b.yaml\n",
    )
    assert found == {"estimator": "b.yaml"}


def test_a_base_that_is_not_there(read, tmp_path):
    with pytest.raises(ConfigError, match=f"there is no config {tmp_path}/none.yaml, which another config names"):
        read(row="model: {base: none.yaml}\n")
