"""What becomes of an object's arguments when a later value names another class, and how ``null`` reaches an argument.

jsonargparse hands the arguments of the old class on to the new one wherever the names agree: ``--model.estimator RLR`` over a
config of ``HalfOrderRLR`` would keep its ``length`` and ``control``. Here the arguments go with their class, for options, second
configs, config files given as values, and bases alike. The same class named again keeps its arguments.
"""

import json
from collections.abc import Mapping
from functools import wraps
from typing import Any

from jsonargparse import Namespace, _typehints
from jsonargparse._util import NestedArg, import_object

ARGUMENTS = ("init_args", "dict_kwargs")
"""The keys under which an object in a config holds its arguments."""


def drop_arguments_with_their_class() -> None:
    """Makes jsonargparse drop ``init_args`` when ``class_path`` changes, and pass ``null`` on to nested arguments."""
    _typehints.discard_init_args_on_class_path_change = _discard
    if not hasattr(_typehints.adapt_class_type, "__wrapped__"):
        _typehints.adapt_class_type = _with_nested_text(_typehints.adapt_class_type)


def _discard(parser: object, previous: Any, value: Any) -> None:
    """Empties the arguments of the previous object if the new one has another class; takes the place of jsonargparse's rule."""
    if not previous or "init_args" not in previous or _same(previous["class_path"], value["class_path"]):
        return
    previous["init_args"] = Namespace()
    previous.pop("dict_kwargs", None)


def _same(one: str, two: str) -> bool:
    return one == two or import_object(one) is import_object(two)


def _with_nested_text(adapt: Any) -> Any:
    """Lets an argument of an argument be given as ``null`` or as a mapping that holds it.

    jsonargparse parses ``--model.estimator.control null`` a second time from the Python text ``None``, which YAML reads as a
    string.
    """

    @wraps(adapt)
    def adapted(value: Any, *args: Any, **kwargs: Any) -> Any:
        nested = value.get("init_args") if isinstance(value, Namespace | dict) else None
        if isinstance(nested, NestedArg) and (nested.val is None or isinstance(nested.val, dict | list)):
            value["init_args"] = NestedArg(nested.key, json.dumps(_plain(nested.val)))
        return adapt(value, *args, **kwargs)

    return adapted


def _plain(value: Any) -> Any:
    """Returns a value without the marks and types of jsonargparse."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key != "__path__"}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
