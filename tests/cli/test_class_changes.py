"""The arguments of a class go with it: whatever names the new class, it starts from its own defaults."""

import inspect
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from _pytest.mark.structures import ParameterSet
from jsonargparse import ActionConfigFile, Namespace
from lightning.pytorch import LightningModule

from rlr import estimators
from rlr.cli.config_inheritance import merge
from rlr.cli.parser import MODE, Parser
from rlr.cli.source_index import named_anywhere
from rlr.cli.static_check import import_classes
from rlr.estimators import Estimator
from rlr.models import DiffusionModel
from rlr.rewards import Reward
from rlr.samplers import Sampler
from tests.config_cover import filled_in
from tests.test_configs import CONFIGS, PARTS

# the parser knows the short names of classes that are imported
import_classes(named_anywhere([]))

PLACES = {"estimator": Estimator, "sampler": Sampler, "reward": Reward, "model": DiffusionModel}
"""The arguments of an alignment whose classes are changed, and what these are classes of."""


def parser() -> Parser:
    found = Parser(parser_mode=MODE, exit_on_error=False)
    found.add_argument("--config", action=ActionConfigFile)
    found.add_subclass_arguments(LightningModule, "model", fail_untyped=False)
    return found


def parse(*args: str) -> Namespace:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parser().parse_args(list(args)).model


EMPTY = inspect.Parameter.empty


def classes(base: type) -> dict[str, type]:
    """All subclasses by their names."""
    return {
        name: found for kind in base.__subclasses__() for name, found in {kind.__name__: kind, **classes(kind)}.items()
    }


def objects() -> dict[str, dict[str, dict]]:
    """Every class that shipped configs name at each place, as one of them gives it, arguments and all."""
    found: dict[str, dict[str, dict]] = {place: {} for place in PLACES}
    known = {place: classes(base) for place, base in PLACES.items()}

    def visit(value):
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            visit(inner)
        for key, inner in value.items() if isinstance(value, dict) else ():
            if key in found and isinstance(inner, str) and inner.isidentifier():
                inner = {"class_path": inner}
            if isinstance(inner, dict) and inner.get("class_path") in known.get(key, ()):
                found[key].setdefault(inner["class_path"], inner)

    for path in CONFIGS:
        visit(filled_in(path))
    for path in PARTS:
        visit({"model": filled_in(path)})
    return found


OBJECTS = objects()
ROUTES = 5
"""The ways in which a class is changed."""


def pairs() -> Iterator[ParameterSet]:
    """Each class is the old one of one pair and the new one of another.

    A pair of each place is changed in every way, and the others in one way after the other; in the slow tests each in every way.
    """
    for place, found in OBJECTS.items():
        for number, (old, new) in enumerate(itertools.pairwise([*sorted(found), min(found)])):
            ways = range(number, number + 1) if number else range(ROUTES)
            yield pytest.param(place, old, new, ways, id=f"{place}-{old}-{new}")
            if number:
                name = f"{place}-{old}-{new}, in every way"
                yield pytest.param(place, old, new, range(ROUTES), id=name, marks=pytest.mark.slow)


def config(place: str, given: object, folder: Path, name: str = "old") -> str:
    """Writes a config with an object at a place and small ones at the others; returns the option that reads it."""
    small = {"model": "Tiny", "sampler": "DDIM", "reward": "Brightness", "estimator": "FirstOrder"}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"model": {"class_path": "ImageAlignment", "init_args": {**small, place: given}}}))
    return f"--config={path}"


def required(cls: str, place: str) -> dict:
    """The arguments without a default, taken from the shipped object."""
    given = OBJECTS[place][cls].get("init_args") or {}
    parameters = inspect.signature(classes(PLACES[place])[cls]).parameters
    return {key: value for key, value in given.items() if key in parameters and parameters[key].default is EMPTY}


def test_the_pairs_cover_what_is_shipped():
    assert {"HalfOrderRLR", "DDPO", "RLR"} <= OBJECTS["estimator"].keys()
    assert len(OBJECTS["reward"]) > 5
    assert {"Tiny", "StableDiffusion"} <= OBJECTS["model"].keys()


def routes(place: str, old: str, new: str, folder: Path) -> list[tuple[str, ...]]:
    """The command lines that change a class: by a file, by its short name, by a config, by options, and over a base."""
    changed = {"class_path": new, "init_args": required(new, place)}
    before = config(place, OBJECTS[place][old], folder)
    part, second, over = (folder / f"{name}.yaml" for name in ("part", "second", "over"))
    part.write_text(yaml.safe_dump(changed))
    second.write_text(yaml.safe_dump({"model": {"init_args": {place: changed}}}))
    over.write_text(yaml.safe_dump({"base": "old.yaml", "model": {"init_args": {place: changed}}}))
    options = (f"--model.{place}.{key}={value}" for key, value in required(new, place).items())
    # an option cannot give a whole object
    by_options = not any(isinstance(value, dict | list) for value in required(new, place).values())
    return [
        (before, f"--model.init_args.{place}={part}"),
        (before, f"--model.{place}={part}"),
        (before, f"--config={second}"),
        (f"--config={over}",),
        *([(before, f"--model.{place}={new}", *options)] if by_options else []),
    ]


@pytest.mark.parametrize(("place", "old", "new", "ways"), pairs())
def test_another_class_starts_from_its_own_defaults(place, old, new, ways, tmp_path):
    changed = {"class_path": new, "init_args": required(new, place)}
    alone = parse(config(place, changed, tmp_path, "alone")).init_args[place]
    found = routes(place, old, new, tmp_path)
    for way in ways:
        route = found[way % len(found)]
        assert plain(parse(*route).init_args[place]) == plain(alone), route


@pytest.mark.parametrize("place", PLACES)
def test_no_pair_of_classes_shares_arguments_in_the_draft(place):
    """Every pair, in the merge that the check before the imports and configs with a base use."""
    for old, new in itertools.permutations(OBJECTS[place], 2):
        given = {"class_path": new, "init_args": required(new, place)}
        assert merge(OBJECTS[place][old], given) == given, (old, new)
        assert merge(OBJECTS[place][old], new) == new


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_no_pair_of_classes_shares_arguments_in_the_parser(place, tmp_path):
    for old, new in itertools.permutations(OBJECTS[place], 2):
        changed = {"class_path": new, "init_args": required(new, place)}
        part = tmp_path / "part.yaml"
        part.write_text(yaml.safe_dump(changed))
        alone = parse(config(place, changed, tmp_path, "alone")).init_args[place]
        found = parse(config(place, OBJECTS[place][old], tmp_path), f"--model.{place}={part}").init_args[place]
        assert plain(found) == plain(alone), (old, new)


def plain(value: object) -> object:
    """A parsed value without the marks of the files that it was read from."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "__path__"}
    return value


def test_the_same_class_named_again_keeps_its_arguments(tmp_path):
    before = config("estimator", {"class_path": "HalfOrderRLR", "init_args": {"length": 3, "steps": 2}}, tmp_path)
    for route in ("--model.estimator=HalfOrderRLR", "--model.estimator=rlr.estimators.half_order_rlr.HalfOrderRLR"):
        args = parse(before, route).init_args.estimator.init_args
        assert (args.length, args.steps) == (3, 2)
    over = tmp_path / "over.yaml"
    for again in ("HalfOrderRLR", {"class_path": "rlr.estimators.HalfOrderRLR"}):
        over.write_text(yaml.safe_dump({"base": "old.yaml", "model": {"init_args": {"estimator": again}}}))
        args = parse(f"--config={over}").init_args.estimator.init_args
        assert (args.length, args.steps) == (3, 2)


def test_a_second_module_does_not_keep_the_arguments_of_the_first(tmp_path):
    before = config("estimator", "FirstOrder", tmp_path)
    with pytest.raises(Exception, match="required"):
        parse(before, "--model=VideoAlignment")


@pytest.mark.parametrize(
    "under", [{"class_path": "A", "init_args": {"x": 1}}, {"class_path": "a.b.A", "init_args": {"x": 1}}]
)
def test_merged_mappings_keep_the_arguments_of_their_own_class(under):
    assert merge(under, {"class_path": "B", "init_args": {"y": 2}}) == {"class_path": "B", "init_args": {"y": 2}}
    assert merge(under, {"class_path": "A"})["init_args"] == {"x": 1}
    assert merge(under, "A") == under
    assert merge(under, "B") == "B"


@pytest.mark.parametrize("name", ["control", "segments", "step_range", "baseline"])
@pytest.mark.parametrize("form", ["--model.estimator.{}={}", "--model.init_args.estimator.init_args.{}={}"])
def test_null_unsets_an_argument_of_an_argument(name, form, tmp_path):
    given = {"control": "LookAhead", "segments": 2, "step_range": [2, 1], "baseline": "RunningMean"}
    before = config("estimator", {"class_path": "HalfOrderRLR", "init_args": {"length": 2, **given}}, tmp_path)
    assert parse(before).init_args.estimator.init_args[name] is not None
    assert parse(before, form.format(name, "null")).init_args.estimator.init_args[name] is None


def optional(name: str) -> list[str]:
    """The arguments of an estimator that may be null, by their annotations."""
    parameters = inspect.signature(getattr(estimators, name)).parameters.values()
    return [p.name for p in parameters if "None" in str(p.annotation)]


def test_null_is_accepted_wherever_the_type_allows_it(tmp_path):
    found = {name: optional(name) for name in sorted(OBJECTS["estimator"]) if hasattr(estimators, name)}
    assert sum(map(len, found.values())) > 5
    for name, arguments in found.items():
        before = config("estimator", OBJECTS["estimator"][name], tmp_path)
        unset = [f"--model.estimator.{argument}=null" for argument in arguments]
        args = parse(before, *unset).init_args.estimator.init_args
        assert {argument: args[argument] for argument in arguments} == dict.fromkeys(arguments), name


def test_null_inside_a_mapping_given_as_an_option(tmp_path):
    before = config(
        "estimator", {"class_path": "HalfOrderRLR", "init_args": {"length": 2, "control": "LookAhead"}}, tmp_path
    )
    given = "{class_path: HalfOrderRLR, init_args: {length: 3, control: null}}"
    args = parse(before, f"--model.estimator={given}").init_args.estimator.init_args
    assert (args.length, args.control) == (3, None)
