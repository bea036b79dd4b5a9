"""Fixtures shared by all tests."""

import os

# before any import of the libraries: a test that reaches for the network must fail here, not hang
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gc
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest


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


@pytest.fixture(scope="session")
def random_sd(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random Stable Diffusion once per choice of settings and returns its folder.

    ``random_sd(prediction="v_prediction", spacing="trailing")``; see ``tests/models/random_sd.py`` for the settings.
    """
    from tests.models.random_sd import write_random_sd

    @cache
    def folder(**settings: object) -> Path:
        return write_random_sd(tmp_path_factory.mktemp("sd"), **settings)

    return folder


@pytest.fixture(scope="session")
def random_sd3(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random Stable Diffusion 3 once per choice of settings and returns its folder."""
    from tests.models.random_sd3 import write_random_sd3

    @cache
    def folder(**settings: object) -> Path:
        return write_random_sd3(tmp_path_factory.mktemp("sd3"), **settings)

    return folder


@pytest.fixture(scope="session")
def random_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random Stable Diffusion XL once per choice of settings and returns its folder."""
    from tests.models.random_sdxl import write_random_sdxl

    @cache
    def folder(**settings: object) -> Path:
        return write_random_sdxl(tmp_path_factory.mktemp("sdxl"), **settings)

    return folder


@pytest.fixture(scope="session")
def random_flux(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random FLUX.1 once per choice of settings and returns its folder."""
    from tests.models.random_flux import write_random_flux

    @cache
    def folder(**settings: object) -> Path:
        return write_random_flux(tmp_path_factory.mktemp("flux"), **settings)

    return folder


@pytest.fixture(scope="session")
def random_flux2(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that writes a random FLUX.2 once per choice of settings and returns its folder."""
    from tests.models.random_flux2 import write_random_flux2

    @cache
    def folder(**settings: object) -> Path:
        return write_random_flux2(tmp_path_factory.mktemp("flux2"), **settings)

    return folder


@pytest.fixture(scope="session")
def random_vc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a random VideoCrafter of 4 frames of 16 x 16 pixels; see ``tests/models/random_vc.py``."""
    from tests.models.random_vc import small, write_random_vc

    return write_random_vc(tmp_path_factory.mktemp("vc"), small())


@pytest.fixture(scope="session")
def random_qwenimage(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Returns a function that writes a random Qwen-Image once and returns its folder."""
    from tests.models.random_qwenimage import write_random_qwenimage

    return cache(lambda: write_random_qwenimage(tmp_path_factory.mktemp("qwenimage")))


@pytest.fixture(scope="session")
def random_zimage(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Returns a function that writes a random Z-Image once and returns its folder."""
    from tests.models.random_zimage import write_random_zimage

    return cache(lambda: write_random_zimage(tmp_path_factory.mktemp("zimage")))


@pytest.fixture(scope="session")
def random_wan(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Returns a function that writes a random Wan once and returns its folder."""
    from tests.models.random_wan import write_random_wan

    return cache(lambda: write_random_wan(tmp_path_factory.mktemp("wan")))
