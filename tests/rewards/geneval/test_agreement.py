"""The benchmark's rule agrees with a second writing-out of the published one on random scenes."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlr.rewards import Detection, GenEval
from tests.rewards.geneval.published import Evaluator
from tests.rewards.geneval.scenes import write

SCENES = 800
THINGS = ("bench", "dog", "sports ball")
COLORS = ("red", "blue")
SIDES = ("left of", "right of", "above", "below")
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
Scene = tuple[dict[str, Any], list[Detection], dict[Detection, str]]
"""A line of the prompts' file, the objects of an image, and their colors."""


def clause(draw: random.Random, k: int) -> dict[str, Any]:
    """Objects of a kind, some of a color and some at a side of the objects of an earlier clause."""
    asked: dict[str, Any] = {"class": draw.choice(THINGS), "count": draw.choice((1, 1, 2))}
    if draw.random() < 0.3:
        asked["color"] = draw.choice(COLORS)
    if k and draw.random() < 0.6:
        asked["position"] = [draw.choice(SIDES), draw.randrange(k)]
    return asked


def thing(draw: random.Random, crowded: bool) -> Detection:
    """An object, often with a confidence near one of the thresholds."""
    x, y, width, height = (draw.uniform(*span) for span in ((50, 450), (50, 450), (10, 90), (10, 90)))
    score = draw.uniform(0.85, 1.0) if crowded or draw.random() < 0.6 else draw.uniform(0.2, 0.4)
    name = THINGS[0] if crowded else draw.choice(THINGS)
    return Detection(name, score, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def scene(draw: random.Random, number: int) -> Scene:
    crowded = draw.random() < 0.1
    line: dict[str, Any] = {"tag": draw.choice((*TASKS, *["position"] * 3)), "prompt": f"scene {number}"}
    line["include"] = [clause(draw, k) for k in range(draw.choice((1, 1, 2, 3)))]
    if draw.random() < 0.4:
        # 17 are one more than are ever counted
        line["exclude"] = [{"class": draw.choice(THINGS), "count": draw.choice((1, 2, 3, 17))}]
    if line["tag"] == "position":
        # two objects of one image each, so that the position alone decides
        line["include"] = [{"class": THINGS[0], "count": 1}, {"class": THINGS[1], "count": 1}]
        line["include"][1]["position"] = [draw.choice(SIDES), 0]
    if crowded:
        line["include"] = [{"class": THINGS[0], "count": draw.choice((1, 16))}]
        line["exclude"] = [{"class": THINGS[0], "count": 17}]
    found = [thing(draw, crowded) for _ in range(draw.randint(20, 40) if crowded else draw.randint(0, 9))]
    if line["tag"] == "position":
        found += [replace(thing(draw, True), name=name) for name in THINGS[:2]]
    return line, found, {one: draw.choice(COLORS) for one in found}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    draw = random.Random(0)
    return [scene(draw, number) for number in range(SCENES)]


def test_random_scenes_are_judged_as_published(scenes: list[Scene], tmp_path: Path) -> None:
    expected = [Evaluator()(*one) for one in scenes]
    shades = {one: color for _, _, colors in scenes for one, color in colors.items()}
    reward = GenEval(
        write(tmp_path, [line for line, _, _ in scenes]),
        lambda images: [found for _, found, _ in scenes][: len(images)],
        lambda image, objects, name: [shades[one] for one in objects],
    )
    scores = reward(torch.zeros(SCENES, 3, 1, 1), [line["prompt"] for line, _, _ in scenes]).tolist()
    assert [line for (line, _, _), a, b in zip(scenes, scores, expected, strict=True) if a != b] == []
    # both verdicts in every task
    verdicts = Counter((line["tag"], verdict) for (line, _, _), verdict in zip(scenes, expected, strict=True))
    assert len(verdicts) == 2 * len(TASKS)
    assert min(verdicts.values()) >= 10


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.36},
        {"counting_threshold": 0.92},
        {"most": 17},
        {"slack": 0.0},
        {"share": 0.6},
        {"excludes": False},
    ],
)
def test_another_rule_is_seen(scenes: list[Scene], change: dict[str, Any]) -> None:
    """The scenes tell the published numbers from others."""
    other = replace(Evaluator(), **change)
    assert sum(other(*one) != Evaluator()(*one) for one in scenes) >= 2


@pytest.mark.parametrize("left_out", ["color", "position"])
def test_a_claim_that_is_not_read_is_seen(scenes: list[Scene], left_out: str) -> None:
    def without(line: dict[str, Any]) -> dict[str, Any]:
        include = [{key: value for key, value in asked.items() if key != left_out} for asked in line["include"]]
        return {**line, "include": include}

    assert (
        sum(
            Evaluator()(without(line), found, colors) != Evaluator()(line, found, colors)
            for line, found, colors in scenes
        )
        >= 5
    )
