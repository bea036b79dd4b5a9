"""Objects that a detector finds, and which of them count."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlr.rewards.pixels import Image


@dataclass(frozen=True)
class Detection:
    r"""An object in an image.

    Args:
        name: What it is, one of :data:`~rlr.rewards.geneval.names.NAMES`.
        score: The confidence, in [0, 1].
        box: Its left, upper, right and lower edge, in pixels.
        mask: Its pixels, booleans with shape :math:`(H, W)`; without it, colors are those of the whole box.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None = None


Detector = Callable[[Sequence[Image]], Sequence[Sequence[Detection]]]
"""Returns the objects in each of some RGB images of 8-bit numbers, whatever their confidence and order."""

Objects = Mapping[str, Sequence[Detection]]
"""The objects that count, by name; the most confident first."""


def select(
    detections: Sequence[Detection], threshold: float, most: int = 16, overlap: float = 1.0
) -> dict[str, list[Detection]]:
    """Returns the objects that count.

    Args:
        detections: All objects.
        threshold: The confidence that an object must exceed.
        most: The largest number of objects of one name, before overlapping ones are left out.
        overlap: Of two objects of one name whose boxes have an intersection over union of at least this, the less confident
            does not count; 1, as published, keeps both whatever they overlap.
    """
    found: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda one: -one.score):
        if detection.score > threshold:
            found.setdefault(detection.name, []).append(detection)
    return {name: _apart(same[:most], overlap) for name, same in found.items()}


def _apart(same: Sequence[Detection], overlap: float) -> list[Detection]:
    kept: list[Detection] = []
    for one in same:
        if overlap == 1 or all(intersection_over_union(other.box, one.box) < overlap for other in kept):
            kept.append(one)
    return kept


def intersection_over_union(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the intersection over union of two boxes, whose edges are pixels that belong to them."""
    inner = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - inner
    return inner / union if union else 0.0


def _area(box: Sequence[float]) -> float:
    return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)


def relations(a: Detection, b: Detection, slack: float = 0.1) -> set[str]:
    r"""Returns how ``a`` lies relative to ``b``: left of, right of, above, below; none, one or two of them.

    With the centers :math:`c` and the sizes :math:`s` of the boxes, and :math:`o = c_a - c_b`, a coordinate of

    .. math:: d = \operatorname{sign}(o) \max(|o| - k (s_a + s_b), 0) / \|o\|_2

    counts where its absolute value is above one half; :math:`k` is ``slack``. The vertical axis points down.
    """
    (center_a, size_a), (center_b, size_b) = _geometry(a), _geometry(b)
    offset = center_a - center_b
    rest = np.maximum(np.abs(offset) - slack * (size_a + size_b), 0) * np.sign(offset)
    if (np.abs(rest) < 1e-3).all():
        return set()
    x, y = rest / np.linalg.norm(offset)
    found = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {relation for relation, holds in found.items() if holds}


def _geometry(one: Detection) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.array(one.box, dtype=np.float64).reshape(2, 2)
    return (low + high) / 2, np.abs(high - low)
