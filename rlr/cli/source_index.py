"""Classes as their source files define them, found without importing them.

Importing torch and Lightning takes seconds; parsing the few files that define the classes of a config takes hundredths. Whatever
cannot be found this way is ``None``, which means unknown and not wrong: the full parser decides.
"""

import ast
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "rlr"
"""The package whose classes have short names in configs."""

DEPTH = 20
"""How many re-exports are followed from a name to its definition."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a constructor.

    Args:
        name: Its name.
        annotation: Its annotation, as written.
        default: Its default, as written; ``None`` if it has to be given.
        module: The module in which it is written, to resolve the names in its annotation.
    """

    name: str
    annotation: ast.expr | None
    default: ast.expr | None
    module: "Module"


class Module:
    """The source of a module.

    Args:
        name: Its import path.
        path: Its file.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.text = path.read_text(encoding="utf-8", errors="replace")
        self.class_names = set(re.findall(r"^class (\w+)", self.text, re.MULTILINE))

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.text)

    @cached_property
    def classes(self) -> dict[str, "Class"]:
        """The classes defined at the top of the module."""
        found = [node for node in statements(self.tree.body) if isinstance(node, ast.ClassDef)]
        return {node.name: Class(node, self) for node in found}

    @cached_property
    def functions(self) -> set[str]:
        """The names of the functions defined at the top of the module."""
        return {node.name for node in statements(self.tree.body) if isinstance(node, ast.FunctionDef)}

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """The module and the name there of each name imported from another module."""
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        found: dict[str, tuple[str, str]] = {}
        for node in statements(self.tree.body):
            if isinstance(node, ast.ImportFrom):
                parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*parents, *([node.module] if node.module else [])])
                found |= {alias.asname or alias.name: (source, alias.name) for alias in node.names}
        return found

    def mentions(self, name: str) -> bool:
        """Whether the module may define a name beside its classes, as far as its text states."""
        # our packages make names from what their text mentions
        signs = "" if self.name.partition(".")[0] == PACKAGE else "|__getattr__|sys\\.modules"
        return re.search(rf"\b{re.escape(name)}\b{signs}", self.text) is not None

    def resolve(self, name: str, depth: int = 0) -> "Class | None":
        """Returns the class that a name stands for in this module."""
        if name in self.class_names:
            return self.classes.get(name)
        if depth > DEPTH or name not in self.imports:
            return None
        source = open_module(self.imports[name][0])
        return source.resolve(self.imports[name][1], depth + 1) if source else None


class Class:
    """The source of a class.

    Args:
        node: Its definition.
        module: Its module.
    """

    def __init__(self, node: ast.ClassDef, module: Module) -> None:
        self.node, self.module, self.name = node, module, node.name

    @property
    def path(self) -> str:
        """Its import path."""
        return f"{self.module.name}.{self.name}"

    @cached_property
    def bases(self) -> list["Class | None"]:
        """Its bases; ``None`` for each that is not found."""
        return [resolve_expression(base, self.module) for base in self.node.bases]

    @cached_property
    def ancestors(self) -> list["Class"]:
        """The class and all classes above it that are found, nearest first."""
        found = [self, *(item for base in self.bases if base for item in base.ancestors)]
        # of a class that is met twice, the last place is the one in Python's order
        return [item for k, item in enumerate(found) if item.path not in {later.path for later in found[k + 1 :]}]

    @cached_property
    def abstract(self) -> bool:
        """Whether a method of it is abstract and not defined by a class nearer to it."""
        names: dict[str, bool] = {}
        for item in self.ancestors:
            for node in item.node.body:
                if isinstance(node, ast.FunctionDef):
                    names.setdefault(node.name, any("abstract" in ast.unparse(mark) for mark in node.decorator_list))
                elif isinstance(node, ast.Assign | ast.AnnAssign):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    for target in targets:
                        names.setdefault(ast.unparse(target), False)
        return any(names.values())

    @property
    def is_dataclass(self) -> bool:
        """Whether it is decorated as a dataclass."""
        return any("dataclass" in ast.unparse(mark) for mark in self.node.decorator_list)

    def below(self, base: "Class") -> bool:
        """Whether this is a subclass of ``base``, or ``base`` itself."""
        return any(item.path == base.path for item in self.ancestors)

    @cached_property
    def parameters(self) -> dict[str, Parameter] | None:
        """The parameters of its constructor; ``None`` if they do not follow from the source."""
        found: dict[str, Parameter] = {}
        for item in self.ancestors:
            if init := item.method("__init__"):
                found = {**_parameters(init, item.module), **found}
                if not init.args.kwarg:
                    return found if not init.args.vararg else None
                if not _passes_on(init):
                    return None
            elif item.is_dataclass:
                return self._fields()
            if None in item.bases:
                return None
        return None

    def method(self, name: str) -> ast.FunctionDef | None:
        """Returns a method that the class itself defines."""
        return next((node for node in self.node.body if isinstance(node, ast.FunctionDef) and node.name == name), None)

    def _fields(self) -> dict[str, Parameter] | None:
        if None in self.bases:
            return None
        found = {}
        for item in reversed(self.ancestors):
            for node in item.node.body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    found[node.target.id] = Parameter(node.target.id, node.annotation, node.value, item.module)
        return found


def _parameters(init: ast.FunctionDef, module: Module) -> dict[str, Parameter]:
    """Returns the parameters of a function but the first, such as ``self``, and those that it takes by ``*`` and ``**``."""
    given = init.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [*[None] * (len(positional) - len(given.defaults)), *given.defaults, *given.kw_defaults]
    both = zip([*positional, *given.kwonlyargs], defaults, strict=True)
    return {arg.arg: Parameter(arg.arg, arg.annotation, default, module) for arg, default in list(both)[1:]}


def _passes_on(init: ast.FunctionDef) -> bool:
    """Whether a constructor passes the arguments that it takes by ``**`` to that of the next class, and to nothing else."""
    calls = [
        node
        for node in ast.walk(init)
        if isinstance(node, ast.Call) and any(word.arg is None for word in node.keywords)
    ]
    return bool(calls) and all(ast.unparse(call.func) == "super().__init__" for call in calls)


def method_parameters(kind: Class, name: str) -> dict[str, Parameter]:
    """Returns the parameters of a method of a class; none if it has no such method."""
    method = kind.method(name)
    return _parameters(method, kind.module) if method else {}


def function_parameters(module: str, name: str) -> dict[str, Parameter]:
    """Returns the parameters of a function but the first; none if there is no such function."""
    source = open_module(module)
    found = (
        [node for node in source.tree.body if isinstance(node, ast.FunctionDef) and node.name == name] if source else []
    )
    return _parameters(found[0], source) if found and source else {}


def resolve_expression(node: ast.expr, module: Module) -> Class | None:
    """Returns the class that a name, or a dotted name, stands for in a module."""
    if isinstance(node, ast.Name):
        return module.resolve(node.id)
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        return module.resolve(node.value)
    return None


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields statements, and those within conditions such as ``if TYPE_CHECKING``."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from statements([*node.body, *node.orelse])


@cache
def open_module(name: str) -> Module | None:
    """Returns the source of a module, which is not imported, nor are its packages."""
    folders, origin = list(sys.path), None
    for part in name.split("."):
        spec = PathFinder.find_spec(part, folders)
        if spec is None:
            return None
        folders, origin = list(spec.submodule_search_locations or []), spec.origin
    path = Path(origin) if origin else None
    return Module(name, path) if path and path.suffix == ".py" else None


def missing_module(name: str) -> str | None:
    """Returns the first part of the way to a module that does not exist; ``None`` if all of them may exist.

    All of Python's finders, such as those of editable installs, are asked for the package. What a package's own source mentions may
    be defined there.
    """
    package, *parts = name.split(".")
    if package.isidentifier() and package not in sys.modules and find_spec(package) is None:
        return package
    way = package
    for part in parts:
        source, way = open_module(way), f"{way}.{part}"
        if source is None or source.path.name != "__init__.py":
            return None
        known = way in sys.modules or source.mentions(part) or any(source.path.parent.glob(f"{part}*"))
        if not known:
            return way
    return None


def open_class(path: str) -> Class | None:
    """Returns the class at an import path."""
    module, _, name = path.rpartition(".")
    source = open_module(module) if module else None
    return source.resolve(name) if source else None


@cache
def modules_of(package: str) -> tuple[Module, ...]:
    """Returns all modules of a package."""
    top = open_module(package)
    if top is None:
        return ()
    root = top.path.parent
    files = [path for path in sorted(root.rglob("*.py")) if path.name != "__init__.py"]
    names = [".".join([package, *path.relative_to(root).with_suffix("").parts]) for path in files]
    return tuple(module for name in names if (module := open_module(name)))


@cache
def named(name: str, base: Class) -> list[Class]:
    """Returns the classes below ``base`` that go by a short name."""
    found = [module.classes[name] for module in _known_to(base) if name in module.class_names]
    return [item for item in found if item.below(base)]


def named_anywhere(names: Sequence[str]) -> list[Class]:
    """Returns the classes of the package that go by one of some short names; all that there are if none does."""
    return named_among(names) or [item for module in modules_of(PACKAGE) for item in module.classes.values()]


def named_among(names: Collection[str]) -> list[Class]:
    """Returns the classes of the package that go by one of some short names."""
    return [module.classes[name] for module in modules_of(PACKAGE) for name in module.class_names if name in names]


@cache
def names_below(base: Class) -> list[str]:
    """Returns the short names of the concrete classes below ``base``, without private ones."""
    found = {item.name for module in _known_to(base) for item in module.classes.values() if item.below(base)}
    concrete = {name for name in found for item in named(name, base) if not item.abstract and name[0] != "_"}
    return sorted(concrete - ({base.name} if not base.module.name.startswith(PACKAGE) else set()))


def _known_to(base: Class) -> tuple[Module, ...]:
    """The modules whose classes have short names where ``base`` is expected: ours, and those of the package of ``base``."""
    own = () if base.module.name.startswith(f"{PACKAGE}.") else modules_of(base.module.name.rpartition(".")[0])
    return (*modules_of(PACKAGE), *own)
