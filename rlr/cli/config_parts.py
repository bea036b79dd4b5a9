"""The objects of a parsed config: mappings with ``class_path`` and ``init_args``."""

from collections.abc import Mapping
from typing import Any


def arguments_of(value: Any) -> Mapping[str, Any]:
    """Returns the arguments of an object; none of anything else."""
    return (value.get("init_args") or {}) if isinstance(value, Mapping) else {}


def class_of(value: Any) -> str | None:
    """Returns the name of the class of an object without its path; None of anything else."""
    path = value.get("class_path") if isinstance(value, Mapping) else None
    return str(path).rpartition(".")[2] if path else None
