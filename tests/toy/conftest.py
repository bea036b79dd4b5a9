"""What the tests of the built-in world share."""

import pytest
from lightning import seed_everything


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """The folder of a small autoencoder that has learned nothing."""
    from rlr.toy.pretraining.autoencoder import Autoencoder

    folder = tmp_path_factory.mktemp("vae")
    seed_everything(0)
    Autoencoder(channels=(8, 8, 8)).export(folder)
    return str(folder)
