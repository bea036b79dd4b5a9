"""Whether a value in a config fits an annotation, as far as the source files tell; whatever they do not tell fits."""

import ast
import sys
from collections.abc import Mapping
from typing import Any

from rlr.cli.class_changes import ARGUMENTS
from rlr.cli.config_inheritance import Part
from rlr.cli.draft_config import parse_value
from rlr.cli.error_messages import (
    formatted,
    function_for_class,
    missing,
    no_file,
    no_module,
    unknown_argument,
    unknown_class,
    wrong_type,
)
from rlr.cli.source_index import (
    Class,
    Module,
    Parameter,
    missing_module,
    named,
    names_below,
    open_class,
    open_module,
    resolve_expression,
)
from rlr.io.config_files import SUFFIXES, ConfigError

SCALARS: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": (str, int, float, Part),
}
"""The values that each scalar type takes. A number is text where text is expected: options are not quoted."""

SEQUENCES = ("list", "List", "Sequence", "Iterable", "Collection", "set", "Set", "frozenset")
MAPPINGS = ("dict", "Dict", "Mapping", "MutableMapping")
UNIONS = ("Union", "Optional")


class TypeCheck:
    """Checks values against annotations and collects the classes that the values name.

    Args:
        complete: Whether arguments without a default have to be there.
    """

    def __init__(self, complete: bool = True) -> None:
        self.complete = complete
        self.classes: dict[str, Class] = {}

    def value(self, value: Any, annotation: ast.expr | None, module: Module, place: str) -> None:
        """Checks a value.

        Raises:
            ConfigError: If it does not fit.
        """
        if annotation is None or (isinstance(value, str) and "${" in value):
            return
        refused: list[ConfigError] = []
        kinds = _alternatives(annotation)
        for kind in kinds:
            try:
                self._alternative(value, kind, module, place)
                return
            except ConfigError as error:
                refused.append(error)
        # of several alternatives, the one for objects knows most about what is wrong with an object
        inner = [error for kind, error in zip(kinds, refused, strict=True) if not _shallow(kind, value)]
        raise inner[0] if inner else ConfigError(wrong_type(place, _words(kinds), value))

    def arguments(self, given: Mapping[Any, Any], parameters: Mapping[str, Parameter], owner: str, place: str) -> None:
        """Checks the arguments of a constructor."""
        for name, value in given.items():
            at = f"{place}.{name}" if place else str(name)
            if not isinstance(name, str):
                raise ConfigError(
                    f"{place}: expected the name of an argument of {owner}, got {formatted(name)}; names are text"
                )
            if name not in parameters:
                raise ConfigError(unknown_argument(place, owner, name, list(parameters)))
            parameter = parameters[name]
            if value is None and isinstance(parameter.default, ast.Constant) and parameter.default.value is None:
                continue
            with_default = parameter.default is not None and not isinstance(parameter.default, ast.Constant)
            if with_default and isinstance(value, Mapping) and "class_path" not in value and not _is_fields(parameter):
                continue  # the arguments of an object that is there by default
            self.value(value, parameter.annotation, parameter.module, at)
        lacking = [name for name, parameter in parameters.items() if parameter.default is None and name not in given]
        if self.complete and lacking:
            raise ConfigError(missing(place, owner, lacking))

    def object(self, value: Any, base: Class, place: str) -> None:
        """Checks an object of a class below ``base``: a name, a config file, or a mapping with ``class_path`` and ``init_args``."""
        if isinstance(value, Part):
            value = value.load()
        if isinstance(value, str):
            value = {"class_path": value}
        if not isinstance(value, Mapping):
            raise ConfigError(
                wrong_type(place, f"the name of a class of {base.name}, or class_path and init_args", value)
            )
        if "class_path" in value:
            self._named_object(value, base, place)
        elif base.parameters is not None and not base.abstract and "init_args" not in value:
            self.arguments(value, base.parameters, base.name, place)
        elif base.abstract or set(value) == {"init_args"} or base.parameters is None:
            raise ConfigError(
                f"{place}: expected class_path, got {formatted(sorted(map(str, value)))}; set class_path to a class of {base.name}"
            )

    def _named_object(self, value: Mapping[Any, Any], base: Class, place: str) -> None:
        name, given = value["class_path"], value.get("init_args")
        if not isinstance(name, str):
            raise ConfigError(wrong_type(f"{place}.class_path", "the name of a class", name))
        for key in value:
            if key not in ("class_path", *ARGUMENTS):
                raise ConfigError(
                    f"{place}: expected class_path and init_args, got {formatted(key)}; set arguments under init_args"
                )
        # a key with nothing under it is null, too
        if "init_args" in value and not isinstance(given, Mapping):
            raise ConfigError(wrong_type(f"{place}.init_args", "arguments by name", given))
        if "${" in name:
            return
        found = self._class(name, base, place)
        if found is None:
            return
        self.classes[found.path] = found
        if found.parameters is not None:
            # a class whose parameters are known takes no others by **
            further = value.get("dict_kwargs") or {}
            if not isinstance(further, Mapping):
                raise ConfigError(wrong_type(f"{place}.dict_kwargs", "arguments by name", further))
            self.arguments({**(given or {}), **further}, found.parameters, found.name, place)

    def _class(self, name: str, base: Class, place: str) -> Class | None:
        """Returns the class that a name stands for; ``None`` if the source files do not tell."""
        if name.endswith(SUFFIXES) or "/" in name:
            raise ConfigError(no_file(place, name))
        if "." in name:
            found = open_class(name)
            source = open_module(name.rpartition(".")[0])
            if source is None and (lacking := missing_module(name.rpartition(".")[0])):
                raise ConfigError(no_module(place, lacking))
            if found is None and source and name.rpartition(".")[2] in source.functions:
                raise ConfigError(function_for_class(place, base.name, name, names_below(base)))
            if found is None and source and _names_all(source) and name.rpartition(".")[2] not in source.text:
                raise ConfigError(
                    unknown_class(place, base.name, name, sorted(source.class_names) or names_below(base))
                )
            return found
        candidates = named(name, base)
        if candidates or _imported(name, base):
            return candidates[0] if len(candidates) == 1 else None
        raise ConfigError(unknown_class(place, base.name, name, names_below(base)))

    def _alternative(self, value: Any, kind: ast.expr, module: Module, place: str) -> None:
        """Checks a value against an annotation that is no union."""
        name = _name(kind)
        if isinstance(kind, ast.Constant) and kind.value is None:
            fits = value is None
        elif name in SCALARS:
            fits = _scalar(value, name)
        elif name == "Literal" and isinstance(kind, ast.Subscript):
            fits = value in [ast.literal_eval(item) for item in _items(kind)]
        elif value is None:
            fits = not (name in (*SEQUENCES, *MAPPINGS, "tuple", "Tuple") or resolve_expression(kind, module))
        elif isinstance(kind, ast.Subscript) and name in (*SEQUENCES, "tuple", "Tuple", *MAPPINGS):
            self._container(value, kind, name, module, place)
            return
        elif isinstance(kind, ast.Name) and (base := resolve_expression(kind, module)) and _is_object(base):
            self.object(value, base, place)
            return
        else:
            fits = True
        if not fits:
            raise ConfigError(wrong_type(place, _words([kind]), value))

    def _container(self, value: Any, kind: ast.Subscript, name: str, module: Module, place: str) -> None:
        items = _items(kind)
        if name in MAPPINGS:
            if not isinstance(value, Mapping):
                raise ConfigError(wrong_type(place, "a mapping", value))
            for key, item in value.items():
                if _name(items[0]) == "str" and not isinstance(key, str):
                    raise ConfigError(f"{place}: expected keys that are text, got {formatted(key)}; put it into quotes")
                self.value(item, items[-1], module, f"{place}.{key}")
            return
        if not isinstance(value, list):
            objects = any(resolve_expression(kind, module) for kind in _alternatives(items[0]))
            if isinstance(value, str) and name in SEQUENCES and not objects:
                return  # jsonargparse reads the name of a file with one item a line
            raise ConfigError(wrong_type(place, "a list", value))
        fixed = name in ("tuple", "Tuple") and not _is_ellipsis(items[-1])
        if fixed and len(items) != len(value):
            raise ConfigError(wrong_type(place, f"a list of {len(items)} values", value))
        for k, item in enumerate(value):
            self.value(item, items[k if fixed else 0], module, f"{place}[{k}]")


def _names_all(source: Module) -> bool:
    """Whether a file states the names of all classes that can be imported from it; an ``__init__.py`` of others may not."""
    return source.path.name != "__init__.py" or "lazy_names(__name__" in source.text


def _is_fields(parameter: Parameter) -> bool:
    """Whether a parameter takes a dataclass, whose fields are written without ``class_path``."""
    kinds = _alternatives(parameter.annotation) if parameter.annotation else []
    found = [resolve_expression(kind, parameter.module) for kind in kinds]
    return any(kind is not None and kind.is_dataclass for kind in found)


def _is_object(kind: Class) -> bool:
    """Whether values of a class are written as objects; of enumerations, named tuples and protocols they may not be."""
    names = {ast.unparse(base).rpartition(".")[2].split("[")[0] for item in kind.ancestors for base in item.node.bases}
    return not names & {"Enum", "StrEnum", "IntEnum", "NamedTuple", "TypedDict", "Protocol"}


def _alternatives(annotation: ast.expr) -> list[ast.expr]:
    """Returns the annotations that a union is one of."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _alternatives(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return [*_alternatives(annotation.left), *_alternatives(annotation.right)]
    if isinstance(annotation, ast.Subscript) and _name(annotation) in UNIONS:
        inner = [kind for item in _items(annotation) for kind in _alternatives(item)]
        return [*inner, ast.Constant(None)] if _name(annotation) == "Optional" else inner
    return [annotation]


def _items(kind: ast.Subscript) -> list[ast.expr]:
    return kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]


def _name(kind: ast.expr) -> str:
    """Returns the last name in an annotation without its subscript."""
    kind = kind.value if isinstance(kind, ast.Subscript) else kind
    return kind.id if isinstance(kind, ast.Name) else kind.attr if isinstance(kind, ast.Attribute) else ""


def _scalar(value: Any, name: str) -> bool:
    if isinstance(value, str) and name != "str":
        value = parse_value(value)  # text that holds a number is one
    return isinstance(value, SCALARS[name]) and (name in ("bool", "str") or not isinstance(value, bool))


def _is_ellipsis(kind: ast.expr) -> bool:
    return isinstance(kind, ast.Constant) and kind.value is Ellipsis


def _shallow(kind: ast.expr, value: Any) -> bool:
    """Whether an alternative says no more of a value than that it has the wrong type."""
    plain = _name(kind) in SCALARS or isinstance(kind, ast.Constant) or _name(kind) == "Literal"
    if isinstance(value, Mapping | Part):
        return plain or _name(kind) in SEQUENCES
    if isinstance(value, list):
        return _name(kind) not in (*SEQUENCES, "tuple", "Tuple")
    return plain or not isinstance(value, str) or isinstance(kind, ast.Subscript)


def _words(kinds: list[ast.expr]) -> str:
    """Returns annotations as YAML would call them: ``float or null``."""
    return " or ".join(_word(kind) for kind in kinds)


def _word(kind: ast.expr) -> str:
    if isinstance(kind, ast.Constant) and kind.value is None:
        return "null"
    if _name(kind) == "Literal" and isinstance(kind, ast.Subscript):
        return "one of " + ", ".join(str(ast.literal_eval(item)) for item in _items(kind))
    return ast.unparse(kind)


def _imported(name: str, base: Class) -> bool:
    """Whether a class below ``base`` that is imported already goes by a name."""

    def below(kind: type[object]) -> bool:
        found: list[type[object]] = kind.__subclasses__()
        return any(item.__name__ == name or below(item) for item in found)

    kind = getattr(sys.modules.get(base.module.name), base.name, None)
    return isinstance(kind, type) and below(kind)
