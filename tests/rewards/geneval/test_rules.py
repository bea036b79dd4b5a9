"""GenEval's rules on detections by hand, case by case as published."""

import json

import pytest
import torch

from rlr.rewards import Correct, Detection, Exact, GenEval, PartialCredit
from rlr.rewards.geneval.metadata import Check, Clause, read_checks
from rlr.rewards.geneval.objects import intersection_over_union, relations, select
from tests.rewards.geneval.scenes import LINES, thing, write


def never(objects, name):
    raise AssertionError(f"the color of a {name} does not matter here")


def named(**colors):
    """Names the colors of the objects of a name in their order."""

    def name_colors(objects, name):
        assert len(objects) <= len(colors[name])
        return colors[name][: len(objects)]

    return name_colors


def scores(check, objects, colors=never):
    """The three scores of the objects that count."""
    found = select(objects, 0.9 if check.tag == "counting" else 0.3)
    return tuple(rule(found, check, colors) for rule in (Correct(), Exact(), PartialCredit()))


@pytest.fixture
def checks(tmp_path):
    return {check.tag: check for check in read_checks([write(tmp_path)]).values()}


# ---------------------------------------------------------------- which objects count


def test_an_object_must_exceed_the_threshold_and_the_most_confident_comes_first():
    low, middle, high = (thing("cat", score=score) for score in (0.3, 0.31, 0.9))
    assert select([low, middle, high, thing("dog", score=0.2)], 0.3) == {"cat": [high, middle]}
    assert select([low], 0.3) == {}


def test_at_most_sixteen_objects_of_a_name_count():
    many = [thing("cat", score=0.5 + k / 100) for k in range(20)]
    assert select(many, 0.3)["cat"] == many[:3:-1]
    assert len(select([*many, *[thing("dog")] * 3], 0.3)["dog"]) == 3


def test_overlap_is_of_boxes_whose_edges_are_pixels():
    # boxes of 11 × 11 pixels that share 6 × 11
    assert intersection_over_union((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(66 / (121 + 121 - 66))
    assert intersection_over_union((0, 0, 10, 10), (20, 0, 30, 10)) == 0
    # neighbors share the column of pixels at the edge
    assert intersection_over_union((0, 0, 10, 10), (10, 0, 20, 10)) == pytest.approx(11 / 231)


def test_overlapping_objects_are_left_out_below_an_overlap_of_one_alone():
    near = [thing("cat", 50, score=0.9), thing("cat", 52, score=0.8), thing("cat", 90, score=0.7)]
    assert len(select(near, 0.3)["cat"]) == 3
    assert [one.score for one in select(near, 0.3, overlap=0.5)["cat"]] == [0.9, 0.7]
    # the one that is left out leaves none out itself
    chain = [thing("cat", 50, score=0.9), thing("cat", 55, score=0.8), thing("cat", 60, score=0.7)]
    assert [one.score for one in select(chain, 0.3, overlap=0.5)["cat"]] == [0.9, 0.7]


# ---------------------------------------------------------------- positions


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (10, 50, {"left of"}),
        (90, 50, {"right of"}),
        (50, 10, {"above"}),
        (50, 90, {"below"}),
        # sizes of 20 each: an offset counts beyond 4 pixels
        (54, 50, set()),
        (46, 54, set()),
        (53, 90, {"below"}),
        # (40 - 4) / (40 √2) = 0.636 on both axes
        (90, 90, {"right of", "below"}),
        (10, 10, {"left of", "above"}),
        # (8 - 4) / 8 = 0.5 is not above one half, and (9 - 4) / 9 is
        (58, 50, set()),
        (59, 50, {"right of"}),
        # (20 - 4) / √(20² + 40²) = 0.36 against 0.80
        (70, 90, {"below"}),
    ],
)
def test_relations_of_centers_beyond_a_tenth_of_the_sizes(x, y, expected):
    assert relations(thing("a", x, y), thing("b", 50, 50)) == expected
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    assert relations(thing("b", 50, 50), thing("a", x, y)) == {opposite[relation] for relation in expected}


def test_relations_depend_on_both_sizes():
    wide = Detection("a", 0.9, (0, 40, 100, 60))
    # 0.1 · (100 + 20) = 12 horizontally
    assert relations(wide, thing("b", 61, 50)) == set()
    assert relations(wide, thing("b", 76, 50)) == {"left of"}


# ---------------------------------------------------------------- single and two objects


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["bench"], (1, 1, 1)),
        (["bench", "cat"], (1, 1, 1)),
        ([], (0, 0, 0)),
        (["cat"], (0, 0, 0)),
        # more than one is right for the benchmark, and wrong for training; the credit falls with each
        (["bench"] * 2, (1, 0, 0)),
        (["bench"] * 3, (1, 0, -1)),
    ],
)
def test_a_single_object(checks, names, expected):
    assert scores(checks["single_object"], [thing(name) for name in names]) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["bench", "sports ball"], (1, 1, 1)),
        (["sports ball"], (0, 0, 0.5)),
        (["bench", "sports ball", "sports ball"], (1, 0, 0.5)),
        ([], (0, 0, 0)),
    ],
)
def test_two_objects(checks, names, expected):
    assert scores(checks["two_object"], [thing(name) for name in names]) == expected


# ---------------------------------------------------------------- counting


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, (0, 0, 0)), (1, (0, 0, 1 / 3)), (2, (0, 0, 2 / 3)), (3, (1, 1, 1)), (4, (0, 0, 2 / 3)), (7, (0, 0, -1 / 3))],
)
def test_counting_forgives_no_further_object(checks, count, expected):
    assert scores(checks["counting"], [thing("clock")] * count) == pytest.approx(expected)


def test_counting_needs_more_confidence(checks):
    three = [thing("clock", score=score) for score in (0.95, 0.93, 0.89)]
    assert scores(checks["counting"], three)[0] == 0
    assert scores(checks["counting"], [*three, thing("clock", score=0.901)])[0] == 1


@pytest.mark.parametrize(
    ("dogs", "right"),
    # one of a confidence that a count does not need is enough, and one below all thresholds is not
    [([], 1), ([0.3], 1), ([0.5], 0), ([0.5, 0.95], 0)],
)
def test_what_is_excluded_must_be_absent_in_every_task(dogs, right):
    check = Check("a cat, and no dog", "two_object", (Clause("cat", 1),), (Clause("dog", 1),))
    objects = [thing("cat"), *(thing("dog", score=score) for score in dogs)]
    # the rules of training do not read it
    assert scores(check, objects) == (right, 1, 1)
    assert scores(check, objects[1:]) == (0, 0, 0)


# ---------------------------------------------------------------- colors


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        (["green"], (1, 1, 1)),
        (["red"], (0, 0, 0.5)),
        # the benchmark looks at the most confident one alone; for training there must be one
        (["green", "red"], (1, 0, 0)),
        (["red", "green"], (0, 0, 0)),
        # no object: neither the count nor the color has a point
        ([], (0, 0, 0)),
    ],
)
def test_a_color(checks, colors, expected):
    forks = [thing("fork", score=0.9 - k / 10) for k in range(len(colors))]
    assert scores(checks["colors"], forks, named(fork=colors)) == expected


@pytest.mark.parametrize(
    ("bus", "cup", "expected"),
    [
        (["yellow"], ["red"], (1, 1, 1)),
        # exchanged colors: both counts, no color
        (["red"], ["yellow"], (0, 0, 0.5)),
        (["yellow"], ["yellow"], (0, 0, 0.75)),
        # no cup: its count and its color have no points
        (["yellow"], [], (0, 0, 0.5)),
        ([], [], (0, 0, 0)),
    ],
)
def test_attribution_of_colors(checks, bus, cup, expected):
    found = [thing("bus")] * len(bus) + [thing("cup")] * len(cup)
    assert scores(checks["color_attr"], found, named(bus=bus, cup=cup)) == expected


def test_a_color_of_several_objects_has_partial_credit():
    check = Check("two red cups", "colors", (Clause("cup", 2, "red"),))
    assert scores(check, [thing("cup")] * 2, named(cup=["red", "blue"])) == (0, 0, 0.75)
    assert scores(check, [thing("cup")] * 2, named(cup=["red", "red"])) == (1, 1, 1)


# ---------------------------------------------------------------- positions of objects


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([thing("tv", 20), thing("dog", 80)], (1, 1, 1)),
        # the wrong side: two counts, and a position that counts as two claims, one with a point
        ([thing("tv", 80), thing("dog", 20)], (0, 0, 0.75)),
        # no tv: its count, the position without a target
        ([thing("dog", 80)], (0, 0, 1 / 3)),
        # no dog: its count and its position have no points
        ([thing("tv", 20)], (0, 0, 1 / 3)),
        # the benchmark compares the most confident ones; for training two dogs are one too many
        ([thing("tv", 20), thing("dog", 80, score=0.9), thing("dog", 10, score=0.5)], (1, 0, 1 / 3)),
        ([thing("tv", 20), thing("dog", 80, score=0.5), thing("dog", 10, score=0.9)], (0, 0, 1 / 3)),
    ],
)
def test_a_position(checks, objects, expected):
    assert scores(checks["position"], objects) == pytest.approx(expected)


def test_each_object_must_lie_so_relative_to_each_target():
    check = Check("p", "position", (Clause("tv", 1), Clause("dog", 2, position=("right of", 0))))
    assert scores(check, [thing("tv", 20), thing("dog", 80), thing("dog", 70)]) == (1, 1, 1)
    assert scores(check, [thing("tv", 75), thing("dog", 90), thing("dog", 20)]) == (0, 0, 0.75)


def test_a_position_counts_where_the_color_is_right():
    check = Check("p", "position", (Clause("tv", 1), Clause("dog", 1, "red", ("right of", 0))))
    objects = [thing("tv", 20), thing("dog", 80)]
    assert scores(check, objects, named(dog=["red"])) == (1, 1, 1)
    # two counts of three claims: the position is not looked at
    assert scores(check, objects, named(dog=["blue"])) == pytest.approx((0, 0, 2 / 3))
    # color and position of a dog that is not there are one claim
    assert scores(check, objects[:1], named(dog=[])) == pytest.approx((0, 0, 1 / 3))


def test_a_target_of_the_wrong_color_is_no_target():
    check = Check("p", "position", (Clause("tv", 1, "red"), Clause("dog", 1, position=("right of", 0))))
    objects = [thing("tv", 20), thing("dog", 80)]
    assert scores(check, objects, named(tv=["red"])) == (1, 1, 1)
    # counts 1 and 1, color 0, position 0
    assert scores(check, objects, named(tv=["blue"])) == (0, 0, 0.5)


# ---------------------------------------------------------------- the reward


class Scripted:
    """A detector that returns these objects, one list an image."""

    def __init__(self, *objects):
        self.objects = objects

    def __call__(self, images):
        return self.objects[: len(images)]


def test_the_reward_scores_each_image_by_its_own_prompt(tmp_path):
    detector = Scripted([thing("bench")], [thing("bench")], [thing("clock", score=0.8)] * 3, [])
    reward = GenEval(write(tmp_path), detector, never)
    prompts = [LINES[k]["prompt"] for k in (0, 1, 2, 0)]
    assert reward(torch.zeros(4, 3, 8, 8), prompts).tolist() == [1, 0, 0, 0]
    credit = GenEval(write(tmp_path), detector, never, PartialCredit(), counting_threshold=0.5)
    assert credit(torch.zeros(4, 3, 8, 8), prompts).tolist() == [1, 0.5, 1, 0]


def test_colors_are_named_in_the_image_that_is_scored(tmp_path):
    seen = []

    def brightest(image, objects, name):
        seen.append((image[0, 0].tolist(), len(objects), name))
        return ["green"]

    samples = torch.tensor([0.2, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    reward = GenEval(write(tmp_path), Scripted([thing("fork")], [thing("fork")]), brightest)
    assert reward(samples, ["a photo of a green fork"] * 2).tolist() == [1, 1]
    assert seen == [([51] * 3, 1, "fork"), ([255] * 3, 1, "fork")]


def test_a_prompt_that_no_file_has_is_named(tmp_path):
    reward = GenEval(write(tmp_path), Scripted([]), never)
    with pytest.raises(
        ValueError, match=r"expected a prompt of its 6, got 'a photo of a cat'; set metadata to the file"
    ):
        reward(torch.zeros(1, 3, 8, 8), ["a photo of a cat"])


def test_a_detector_must_return_one_list_an_image(tmp_path):
    with pytest.raises(ValueError, match=r"expected the objects of 2 images, got those of 1"):
        GenEval(write(tmp_path), Scripted([]), never)(torch.zeros(2, 3, 8, 8), [LINES[0]["prompt"]] * 2)


# ---------------------------------------------------------------- the file


def test_several_files_are_read_together_and_a_repetition_is_no_fault(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [write(tmp_path / "a", LINES[:2]), write(tmp_path / "b", LINES[1:])]
    assert list(read_checks(paths)) == [line["prompt"] for line in LINES]
    assert read_checks(paths)["a photo of a dog right of a tv"].include[1] == Clause("dog", 1, None, ("right of", 0))


FAULTS = {
    "is not JSON": "Expecting value",
    '{"tag": "colors"}': "'prompt'",
    json.dumps(LINES[0] | {"include": [{"class": "unicorn", "count": 1}]}): "class: expected one of the 80 names",
    json.dumps(LINES[0] | {"include": [{"class": "bench", "count": 0}]}): "count: expected an integer of at least 1",
    json.dumps(LINES[3] | {"include": [{"class": "fork", "count": 1, "color": "grey"}]}): "color: expected one of red",
    json.dumps(
        LINES[4] | {"include": [{"class": "tv", "count": 1, "position": ["on", 0]}]}
    ): "position: expected one of",
    json.dumps(LINES[4] | {"include": [{"class": "tv", "count": 1, "position": ["above", 0]}]}): "an earlier clause",
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_line_of_another_format_is_named(tmp_path, line):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(LINES[0]) + "\n\n" + line + "\n")
    with pytest.raises(ValueError, match=r"prompts.jsonl, line 3: expected an object with tag") as error:
        read_checks([str(path)])
    assert FAULTS[line] in str(error.value)


def test_a_prompt_with_two_meanings_a_missing_and_an_empty_file_are_refused(tmp_path):
    twice = write(tmp_path, [LINES[0], LINES[0] | {"tag": "counting"}])
    with pytest.raises(
        ValueError, match="line 2: expected the prompt 'a photo of a bench' to ask for what an earlier line"
    ):
        read_checks([twice])
    with pytest.raises(FileNotFoundError, match=r"set GenEval.metadata to the benchmark's evaluation_metadata.jsonl"):
        read_checks([str(tmp_path / "nothing.jsonl")])
    with pytest.raises(ValueError, match=r"GenEval.metadata: expected at least one prompt, found none"):
        read_checks([write(tmp_path, [])])
