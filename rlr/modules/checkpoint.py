"""The content of a checkpoint: the trained weights, complete and without others, and values of the expected types."""

from collections.abc import Mapping
from numbers import Number
from typing import Any

from torch import Tensor

from rlr.distributed import split_like
from rlr.models.base import DiffusionModel

REMEDY = "resume from another checkpoint that `fit` has written"
"""The advice of messages about a checkpoint that cannot be used."""

TYPES: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "pytorch-lightning_version": str,
}
"""The types of the values that Lightning writes to every checkpoint."""

MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""The tensors that Adam and its variants keep for every weight; other optimizers may have None."""

NUMBERS, OPTIONAL = {"lr", "weight_decay", "eps", "momentum"}, {"foreach", "fused"}
SWITCHES = {"amsgrad", "maximize", "nesterov", "capturable", "differentiable", *OPTIONAL}
"""Settings of torch's optimizers: numbers, and booleans, of which some may be None."""


def load_trained(model: DiffusionModel, found: Mapping[str, Tensor], origin: str) -> None:
    """Copies weights into the trained weights of a model.

    Args:
        model: The model.
        found: The weights by name.
        origin: The name of the file, for the message.

    Raises:
        ValueError: If a weight is missing, foreign, not a tensor, or of another shape.
    """
    trained = model.trainable
    missing, foreign = trained.keys() - found.keys(), found.keys() - trained.keys()
    common = trained.keys() & found.keys()
    strange = {key for key in common if not isinstance(found[key], Tensor)}
    misshapen = {key for key in common - strange if trained[key].shape != found[key].shape}
    facts = (
        ("is missing", missing),
        ("is foreign", foreign),
        ("is not a tensor", strange),
        ("has another shape", misshapen),
    )
    problems = ", ".join(f"{min(keys)} {what} ({len(keys)} such)" for what, keys in facts if keys)
    if problems:
        raise ValueError(
            f"{origin} does not hold the trained weights of this {type(model).__name__}: {problems}; load it with the "
            "config of its training"
        )
    for name, weight in trained.items():
        weight.data.copy_(split_like(found[name], weight))


def check_training_state(checkpoint: Mapping[str, Any], origin: str) -> None:
    """Checks the types of the values of Lightning and of optimizers in a checkpoint.

    Args:
        checkpoint: The content.
        origin: The file, for the message.

    Raises:
        ValueError: If a value has another type than Lightning and torch write.
    """
    for name, kind in TYPES.items():
        if name in checkpoint:
            _expect(kind, checkpoint[name], origin, name)
    for name, weight in checkpoint["state_dict"].items():
        if not str(name).endswith("_extra_state"):
            _expect(Tensor, weight, origin, f"state_dict.{name}")
    for name, state in checkpoint.get("callbacks", {}).items():
        _expect(dict, state, origin, f"callbacks.{name}")
    for index, state in enumerate(checkpoint.get("lr_schedulers", [])):
        _expect(dict, state, origin, f"lr_schedulers.{index}")
    for index, state in enumerate(checkpoint.get("optimizer_states", [])):
        _check_optimizer(state, origin, f"optimizer_states.{index}")


def _check_optimizer(found: Any, origin: str, place: str) -> None:
    check_like({"state": {}, "param_groups": []}, found, origin, place)
    for index, group in enumerate(found["param_groups"]):
        at = f"{place}.param_groups.{index}"
        check_like({"params": []}, group, origin, at)
        for name in NUMBERS & group.keys():
            if not isinstance(group[name], Number | Tensor):
                raise _unexpected("a number", group[name], origin, f"{at}.{name}")
        for name in SWITCHES & group.keys():
            if group[name] is not None or name not in OPTIONAL:
                _expect(bool, group[name], origin, f"{at}.{name}")
        for position, number in enumerate(group["params"]):
            _expect(int, number, origin, f"{at}.params.{position}")
        if "betas" in group and not _is_pair(group["betas"]):
            raise _unexpected("two numbers", group["betas"], origin, f"{at}.betas")
    # the settings of Adam and its variants
    moments = MOMENTS if any("amsgrad" in group for group in found["param_groups"]) else set()
    for index, entry in found["state"].items():
        at = f"{place}.state.{index}"
        _expect(dict, entry, origin, at)
        check_like(dict.fromkeys(moments), entry, origin, at)
        for name in MOMENTS & entry.keys():
            _expect(Tensor, entry[name], origin, f"{at}.{name}")


def _is_pair(found: Any) -> bool:
    return isinstance(found, list | tuple) and len(found) == 2 and all(isinstance(x, Number | Tensor) for x in found)


def check_like(expected: Any, found: Any, origin: str, place: str) -> None:
    """Checks that a value from a checkpoint has the structure and the types of a new value.

    Dictionaries must have the keys of the expected one and may have more; sequences of the same length are compared item by
    item; an integer may stand for a float. Where the new value is None, any value is accepted.

    Args:
        expected: The new value, such as the state dict of a new object.
        found: The value from the checkpoint.
        origin: The file, for the message.
        place: The path of the value in the file, for the message, such as ``"alignment.progress"``.

    Raises:
        ValueError: If a value is missing or has another type.
    """
    if expected is None:
        return
    _expect(Tensor if isinstance(expected, Tensor) else type(expected), found, origin, place)
    if isinstance(expected, Mapping):
        missing = sorted(str(key) for key in expected.keys() - found.keys())
        if missing:
            raise ValueError(f"{origin}: {place}.{missing[0]} is missing; {REMEDY}")
        for key, value in expected.items():
            check_like(value, found[key], origin, f"{place}.{key}")
    elif isinstance(expected, list | tuple) and len(expected) == len(found):
        for index, (value, other) in enumerate(zip(expected, found, strict=True)):
            check_like(value, other, origin, f"{place}.{index}")


def _expect(kind: type, found: Any, origin: str, place: str) -> None:
    accepted: Any = Mapping if issubclass(kind, Mapping) else {float: (float, int), list: (list, tuple)}.get(kind, kind)
    # a bool is an int in Python, but not a count
    if not isinstance(found, accepted) or (isinstance(found, bool) and kind is not bool):
        raise _unexpected(kind.__name__, found, origin, place)


def _unexpected(expected: str, found: Any, origin: str, place: str) -> ValueError:
    text = repr(found) if isinstance(found, str | Number | None) else ""
    got = "None" if found is None else f"{type(found).__name__} {text[:40]}".strip()
    return ValueError(f"{origin}: {place}: expected {expected}, got {got}; {REMEDY}")
