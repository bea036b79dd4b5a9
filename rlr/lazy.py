"""Packages whose names are imported on first use (PEP 562), so that importing a package costs nothing."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns ``__getattr__``, ``__dir__`` and ``__all__`` of a package that writes its imports under ``if TYPE_CHECKING:``.

    Type checkers and editors read these imports as they stand; here each runs when its name is first asked for.

    Args:
        package: The ``__name__`` of the package.
        file: The ``__file__`` of the package.

    Raises:
        ValueError: If a name is that of a module of the package, which Python would return in its place.
    """
    sources = _imports(Path(file))
    folder = Path(file).parent
    for name in sources:
        if (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists():
            raise ValueError(
                f"{package} exports {name!r}, which is the name of one of its modules; import it from there instead"
            )

    def get(name: str) -> Any:
        if name not in sources:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = sources[name]
        value = getattr(import_module(module), original)
        # the next time, Python finds it by itself
        import_module(package).__dict__[name] = value
        return value

    names = sorted(sources)
    return get, lambda: names, names


def _imports(path: Path) -> dict[str, tuple[str, str]]:
    """Returns the module and the name there of each name that a file imports under ``if TYPE_CHECKING:``."""
    found: dict[str, tuple[str, str]] = {}
    for block in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for node in block.body:
                if isinstance(node, ast.ImportFrom) and node.module:
                    found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return found


def import_names(package: str) -> None:
    """Imports every name of a package, so that all its classes are known to their base classes."""
    module = import_module(package)
    for name in module.__all__:
        getattr(module, name)
