"""How objects become a score: GenEval's rule, and the two of Flow-GRPO's reward server."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import product

from rlr.rewards.geneval.metadata import Check, Clause
from rlr.rewards.geneval.objects import Detection, Objects, relations

ColorNames = Callable[[Sequence[Detection], str], Sequence[str]]
"""Returns the colors of some objects of one name in the image that is scored."""

Group = Sequence[Detection] | None
"""The objects that fulfill a clause; None if it is not fulfilled."""


class Rule(ABC):
    """Scores an image by the objects in it."""

    @abstractmethod
    def __call__(self, objects: Objects, check: Check, colors: ColorNames) -> float:
        """Returns the score.

        Args:
            objects: The objects that count.
            check: What the prompt asks for.
            colors: Names the colors of objects.
        """


class Correct(Rule):
    """The benchmark's rule: 1 if everything is there, and nothing too often that must not be; else 0.

    Of the objects of a clause's name the most confident are looked at, as many as it asks for. More of them are no mistake,
    except where the prompt's ``exclude`` says so, as it does in the task ``counting``.

    References:
        | GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment (Ghosh et al., 2023)
        | https://arxiv.org/abs/2310.11513
        | https://github.com/djghosh13/geneval, ``evaluation/evaluate_images.py``
    """

    def __call__(self, objects: Objects, check: Check, colors: ColorNames) -> float:
        groups: list[Group] = []
        for clause in check.include:
            groups.append(self._matched(clause, objects, groups, colors))
        too_many = any(len(objects.get(clause.name, ())) >= clause.count for clause in check.exclude)
        return float(all(group is not None for group in groups) and not too_many)

    def _matched(self, clause: Clause, objects: Objects, groups: Sequence[Group], colors: ColorNames) -> Group:
        found = objects.get(clause.name, ())[: clause.count]
        right = (
            len(found) == clause.count
            and (clause.color is None or list(colors(found, clause.name)).count(clause.color) == clause.count)
            and (clause.position is None or lies(found, clause.position, groups))
        )
        return found if right else None


class PartialCredit(Rule):
    r"""Flow-GRPO's reward for training: the mean of the points of all claims.

    * Each clause has :math:`1 - |n - m| / n` points for :math:`m` objects where :math:`n` are asked for, which may be negative.
    * If :math:`m \neq n`, a color and a position have no points, together as one claim; else
    * a color has :math:`1 - |n - m'| / n` points for :math:`m'` objects of it, and
    * a position, which counts where the color is right, has 1 point if it holds. If it does not, it counts as two claims, one
      with a point and one without, and without a target as one claim without a point, as published.

    ``exclude`` is not used, since no clause forgives further objects.

    References:
        | Flow-GRPO: Training Flow Matching Models via Online RL (Liu et al., 2025), Appendix
        | https://arxiv.org/abs/2505.05470
        | https://github.com/yifan123/reward-server, ``reward_server/gen_eval.py``
    """

    def __call__(self, objects: Objects, check: Check, colors: ColorNames) -> float:
        points, _ = _claims(objects, check, colors)
        return sum(points) / len(points) if points else 0.0


class Exact(Rule):
    """The strict score of Flow-GRPO's reward server: 1 if exactly the objects that are asked for are there, else 0."""

    def __call__(self, objects: Objects, check: Check, colors: ColorNames) -> float:
        _, groups = _claims(objects, check, colors)
        return float(all(group is not None for group in groups))


def lies(found: Sequence[Detection], position: tuple[str, int], groups: Sequence[Group]) -> bool:
    """Returns whether each object lies so relative to each one of an earlier group; False without such a group."""
    relation, target = position
    others = groups[target]
    return others is not None and all(relation in relations(one, other) for one, other in product(found, others))


def _claims(objects: Objects, check: Check, colors: ColorNames) -> tuple[list[float], list[Group]]:
    """Returns the points of all claims, and the group of each clause."""
    points: list[float] = []
    groups: list[Group] = []
    for clause in check.include:
        found = objects.get(clause.name, ())
        earned, right = _points(clause, found, groups, colors)
        points += earned
        groups.append(found if right else None)
    return points, groups


def _points(
    clause: Clause, found: Sequence[Detection], groups: Sequence[Group], colors: ColorNames
) -> tuple[list[float], bool]:
    n, m = clause.count, len(found)
    points = [1 - abs(n - m) / n]
    if m != n:
        return points + [0.0] * (clause.color is not None or clause.position is not None), False
    if clause.color is not None:
        m = list(colors(found, clause.name)).count(clause.color)
        points.append(1 - abs(n - m) / n)
    if m != n or clause.position is None:
        return points, m == n
    right = lies(found, clause.position, groups)
    target = groups[clause.position[1]]
    return points + ([0.0] if target is None else [1.0] if right else [0.0, 1.0]), right
