"""Importing the package costs nothing until a name of it is used, and every name it exports is there."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import rlr
from rlr.lazy import lazy_names

PACKAGES = [
    "rlr",
    *(f"rlr.{name}" for name in ("callbacks", "data", "estimators", "models", "modules", "rewards")),
    *(f"rlr.toy.{name}" for name in ("data", "models", "rewards")),
]
HEAVY = (
    "torch",
    "lightning",
    "diffusers",
    "transformers",
    "open_clip",
    "matplotlib",
    "av",
    "vbench",
    "tensorboard",
    "wandb",
)


def imported_by(code: str) -> set[str]:
    """The heavy libraries that some code imports in a process of its own."""
    check = f"import sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_is_there(package):
    module = import_module(package)
    assert len(module.__all__) > 1
    for name in module.__all__:
        value = getattr(module, name)
        assert not isinstance(value, type) or value.__name__ == name
        assert name in dir(module)


def test_packages_import_no_heavy_library():
    assert imported_by(f"import {', '.join(PACKAGES)}, rlr.cli") == set()
    assert imported_by("import rlr; rlr.DDIM") == {"torch"}


def test_the_package_has_what_a_user_needs():
    for name in ("Chain", "DDIM", "RLR", "PickScore", "StableDiffusion", "ImageAlignment", "Prompts", "main"):
        assert name in rlr.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'rlr' has no attribute 'Nothing'"):
        rlr.Nothing  # noqa: B018


def test_a_name_that_a_module_has_is_refused(tmp_path: Path):
    (tmp_path / "measure.py").write_text("")
    (tmp_path / "__init__.py").write_text("if TYPE_CHECKING:\n    from rlr.samplers import DDIM as measure\n")
    with pytest.raises(ValueError, match="'measure', which is the name of one of its modules"):
        lazy_names("some", str(tmp_path / "__init__.py"))
