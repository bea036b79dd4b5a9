"""Fixtures shared by all tests."""

import os

# before any import of the libraries: a test that reaches for the network must fail here, not hang
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# as `make test` has it: a forked process waits forever for the threads of its parent's OpenMP
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import importlib.metadata
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

# every Trainer asks for the plugins of all installed packages, which stay the same
importlib.metadata.entry_points = cache(importlib.metadata.entry_points)  # type: ignore[assignment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses the name of a test that holds an address, which is another one in each of the processes of ``make test``."""
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid} is named by where an object lies in memory; give it an id")


def pytest_collection_finish() -> None:
    """Exempts what the imports have made from garbage collection: tests that collect garbage would search it every time."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Ends the exemption: some libraries report what is never collected."""
    gc.unfreeze()


def _folders(factory: pytest.TempPathFactory, module: str) -> Callable[..., Path]:
    """Returns a function that writes the random model of a module of ``tests/models`` once per choice of settings."""

    @cache
    def folder(**settings: object) -> Path:
        write = getattr(import_module(f"tests.models.{module}"), f"write_{module}")
        return write(factory.mktemp(module), **settings)

    return folder


@pytest.fixture(scope="session")
def random_sd(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random Stable Diffusion once per choice of settings and returns its folder.

    ``random_sd(prediction="v_prediction", spacing="trailing")``; see ``tests/models/random_sd.py`` for the settings.
    """
    return _folders(tmp_path_factory, "random_sd")


@pytest.fixture(scope="session")
def random_sd3(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random Stable Diffusion 3 once per choice of settings and returns its folder."""
    return _folders(tmp_path_factory, "random_sd3")


@pytest.fixture(scope="session")
def random_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random Stable Diffusion XL once per choice of settings and returns its folder."""
    return _folders(tmp_path_factory, "random_sdxl")


@pytest.fixture(scope="session")
def random_flux(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random FLUX.1 once per choice of settings and returns its folder."""
    return _folders(tmp_path_factory, "random_flux")


@pytest.fixture(scope="session")
def random_flux2(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random FLUX.2 once per choice of settings and returns its folder."""
    return _folders(tmp_path_factory, "random_flux2")


@pytest.fixture(scope="session")
def random_qwenimage(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random Qwen-Image once per choice of settings and returns its folder."""
    return _folders(tmp_path_factory, "random_qwenimage")


@pytest.fixture(scope="session")
def random_zimage(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random Z-Image once per choice of settings and returns its folder."""
    return _folders(tmp_path_factory, "random_zimage")


@pytest.fixture(scope="session")
def random_wan(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random Wan once per choice of settings and returns its folder."""
    return _folders(tmp_path_factory, "random_wan")


@pytest.fixture(scope="session")
def random_cogvideox(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random CogVideoX once per choice of settings and returns its folder."""
    return _folders(tmp_path_factory, "random_cogvideox")


@pytest.fixture(scope="session")
def random_ltx(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random LTX-Video once per choice of settings and returns its folder."""
    return _folders(tmp_path_factory, "random_ltx")


@pytest.fixture(scope="session")
def random_hunyuan15(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random HunyuanVideo 1.5 once per choice of settings and returns its folder."""
    return _folders(tmp_path_factory, "random_hunyuan15")


@pytest.fixture(scope="session")
def random_vc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a random VideoCrafter of 4 frames of 16 x 16 pixels; see ``tests/models/random_vc.py``.

    It holds a LoRA of T2V-Turbo, too; see ``tests/models/random_turbo.py``.
    """
    from tests.models.random_turbo import write_random_turbo
    from tests.models.random_vc import small, write_random_vc

    return write_random_turbo(write_random_vc(tmp_path_factory.mktemp("vc"), small()), small())


@pytest.fixture(scope="session")
def member(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """Returns a function that returns the random model of a family by its name, once; see ``tests/models/families.py``."""
    from tests.models.families import FAMILIES, Member

    @cache
    def find(name: str) -> Any:
        family = FAMILIES[name]
        return Member(family, request.getfixturevalue(family.files)(**family.settings))

    return find
