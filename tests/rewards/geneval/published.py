"""The rules of GenEval's evaluator, written out a second time from their description, on the fields of the prompts' file.

Nothing of :mod:`rlr.rewards.geneval` is used but the record of a detected object.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlr.rewards import Detection


@dataclass(frozen=True)
class Evaluator:
    """Whether an image shows what its prompt asks for.

    * An object counts if its confidence is above a threshold, which is higher for the task ``counting``; of one name at most 16.
    * A clause of ``include`` holds if its most confident objects, as many as it asks for, are there, are all of its color, and each
      lie so relative to each one of the clause that it points to, which must hold itself.
    * A clause of ``exclude`` is broken if as many objects of the name count.
    * An object lies to a side if the distance of the centers along that axis, less a tenth of both sizes, is more than half of the
      distance of the centers.

    The arguments are the published numbers, and whether ``exclude`` is read; a test changes each.
    """

    threshold: float = 0.3
    counting_threshold: float = 0.9
    most: int = 16
    slack: float = 0.1
    share: float = 0.5
    excludes: bool = True

    def __call__(self, line: Mapping[str, Any], found: Sequence[Detection], colors: Mapping[Detection, str]) -> bool:
        include = line["include"]
        chosen = [self.counted(line, found, clause["class"])[: clause["count"]] for clause in include]

        def holds(k: int) -> bool:
            clause, objects = include[k], chosen[k]
            if len(objects) != clause["count"]:
                return False
            if "color" in clause and {colors[one] for one in objects} != {clause["color"]}:
                return False
            if "position" not in clause:
                return True
            side, target = clause["position"]
            return holds(target) and all(self.is_at(side, one, other) for one in objects for other in chosen[target])

        broken = (
            len(self.counted(line, found, clause["class"])) >= clause["count"] for clause in line.get("exclude", [])
        )
        return all(map(holds, range(len(include)))) and not (self.excludes and any(broken))

    def counted(self, line: Mapping[str, Any], found: Sequence[Detection], name: str) -> list[Detection]:
        """Returns the objects of a name that count, the most confident first."""
        least = self.counting_threshold if line["tag"] == "counting" else self.threshold
        sure = [one for one in found if one.name == name and one.score > least]
        return sorted(sure, key=lambda one: one.score, reverse=True)[: self.most]

    def is_at(self, side: str, one: Detection, other: Detection) -> bool:
        """Returns whether an object lies at a side of another."""
        (x, y), (width, height) = _middle(one), _size(one)
        (other_x, other_y), (other_width, other_height) = _middle(other), _size(other)
        away = {"left of": other_x - x, "right of": x - other_x, "above": other_y - y, "below": y - other_y}[side]
        sizes = width + other_width if side in ("left of", "right of") else height + other_height
        return away - self.slack * sizes > self.share * math.dist((x, y), (other_x, other_y))


def _middle(one: Detection) -> tuple[float, float]:
    left, upper, right, lower = one.box
    return (left + right) / 2, (upper + lower) / 2


def _size(one: Detection) -> tuple[float, float]:
    left, upper, right, lower = one.box
    return right - left, lower - upper
