"""A hook of MkDocs: a reference page for each package, of the names that its ``__init__.py`` exports."""

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGES = {
    "python": ["rlr.api"],
    "estimators": ["rlr.estimators"],
    "rewards": ["rlr.rewards"],
    "models": ["rlr.models"],
    "export": ["rlr.models.export"],
    "samplers": ["rlr.samplers", "rlr.schedules"],
    "data": ["rlr.data"],
    "evaluation": ["rlr.evaluation"],
    "callbacks": ["rlr.callbacks"],
    "modules": ["rlr.modules"],
    "rollout": ["rlr.rollout", "rlr.chain"],
}
"""The packages and modules of each page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds ``reference/NAME.md`` for each of ``PACKAGES``."""
    root = Path(config.config_file_path).parent
    for name, modules in PACKAGES.items():
        content = f"# {name.capitalize()}\n\n" + "\n".join(section(module, root) for module in modules)
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def section(module: str, root: Path) -> str:
    """Returns the directives of a module: one for each exported name of a package, one for a module of one file."""
    path = root / module.replace(".", "/") / "__init__.py"
    if not path.is_file():
        return f"::: {module}\n"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = exported(tree)
    return f"{ast.get_docstring(tree) or ''}\n\n" + "\n".join(f"::: {name}\n" for name in names)


def exported(tree: ast.Module) -> list[str]:
    """Returns the full names that an ``__init__.py`` imports under their own names (``from a import B as B``), in order."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [f"{node.module}.{name.name}" for node in imports for name in node.names if name.asname == name.name]
