"""Writes a pretraining checkpoint as an ordinary model folder.

``python -m rlr.toy.pretraining.export {vae,denoiser,flow,reward,hpsv2,video} --from CHECKPOINT --to FOLDER``
"""

import argparse
import logging
from pathlib import Path

from rlr.io.weights import read_archive
from rlr.toy.pretraining.autoencoder import Autoencoder
from rlr.toy.pretraining.denoiser import Denoiser
from rlr.toy.pretraining.flow import FlowDenoiser
from rlr.toy.pretraining.hpsv2 import HPSv2
from rlr.toy.pretraining.reward import Reward
from rlr.toy.pretraining.video import VideoDenoiser

MODULES: dict[
    str, type[Autoencoder] | type[Denoiser] | type[FlowDenoiser] | type[Reward] | type[HPSv2] | type[VideoDenoiser]
] = {
    "vae": Autoencoder,
    "denoiser": Denoiser,
    "flow": FlowDenoiser,
    "reward": Reward,
    "hpsv2": HPSv2,
    "video": VideoDenoiser,
}


def main(args: list[str] | None = None) -> None:
    """Reads the command line and writes the folder."""
    parser = argparse.ArgumentParser(prog="python -m rlr.toy.pretraining.export", description=__doc__)
    parser.add_argument("module", choices=MODULES)
    parser.add_argument("--from", dest="checkpoint", type=Path, required=True)
    parser.add_argument("--to", dest="folder", type=Path, required=True)
    options = parser.parse_args(args)
    # damage is found here: Lightning's own loading compares no checksums
    read_archive(options.checkpoint)
    module = MODULES[options.module].load_from_checkpoint(options.checkpoint, map_location="cpu", weights_only=True)
    module.export(options.folder)
    logging.getLogger(__name__).info("Wrote %s", options.folder)


if __name__ == "__main__":
    main()
