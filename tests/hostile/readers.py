"""Everything in ``rlr`` that reads a file of a user: what it reads, and which of the payloads are no fault of such a file."""

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from transformers import CLIPModel

from rlr.api.loading import load
from rlr.callbacks import SafeCheckpointIO
from rlr.callbacks.origin import claim
from rlr.cli.card import results
from rlr.cli.export import read_weights
from rlr.cli.sweep import read_sweep
from rlr.data import HPDv2, PickAPic, PromptFile
from rlr.data.staged.stages import read_stages
from rlr.evaluation.reference import pixels
from rlr.io.config_files import read_config
from rlr.io.json_file import read_json
from rlr.io.keyed_file import KeyedFile
from rlr.io.video import read_video
from rlr.io.weights import map_state, read_archive, read_state, unpack
from rlr.io.weights import read_json as read_settings
from rlr.models import Frozen, StableDiffusion, VideoCrafter
from rlr.models.integrity import check_file
from rlr.models.lora_file import load_lora
from rlr.models.videocrafter.architecture import Architecture
from rlr.records.comparison import write_comparison
from rlr.records.gallery import media
from rlr.records.run_page import write_page
from rlr.rewards import Aesthetic, HPSv2, ImageReward
from rlr.rewards.geneval.metadata import read_checks
from rlr.rewards.networks.pretrained import pretrained
from rlr.rewards.remote.protocol import Limits
from rlr.rewards.remote.protocol import unpack as unpack_request
from rlr.rewards.remote.token import Token
from rlr.toy.data.videos import EncodedVideos
from rlr.toy.models import Tiny
from tests.hostile.payloads import (
    Payloads,
    csv_files,
    gzip_files,
    image_files,
    json_files,
    parquet_files,
    safetensors_files,
    text_files,
    torch_files,
    video_files,
    yaml_files,
)
from tests.models.random_sd import unet
from tests.rewards.authors import aes_files
from tests.rewards.folder import FOLDER


@dataclass(frozen=True)
class Reader:
    """What reads a file.

    Args:
        read: Reads the file whose path it is given.
        payloads: The files that lie.
        name: The name of the file, with its suffix.
        accepts: The payloads that are no fault of a file of this kind.
    """

    read: Callable[[Path], Any]
    payloads: Payloads
    name: str
    accepts: frozenset[str] = frozenset()


def in_run(name: str) -> Callable[[Path], Any]:
    """Returns what makes pages and a table of two runs, one of whose files is the given one."""

    def read(path: Path) -> Any:
        folders = [path.parent / "runs" / run for run in ("one", "two")]
        for folder in folders:
            (folder / name).parent.mkdir(parents=True)
            (folder / "metrics.csv").write_text("step,updates,reward/mean\n0,1,2.0\n")
        shutil.copy(path, folders[0] / name)
        write_page(folders[0])
        write_comparison(folders, path.parent / "comparison")

    return read


def in_folder(name: str, read: Callable[[str], Any], template: Path | None = None) -> Callable[[Path], Any]:
    """Returns what reads a folder, one of whose files is the given one.

    Args:
        name: The name of the file in the folder.
        read: Reads the folder.
        template: The folder that the others are taken from, without other weights in the folder of the file.
    """

    def reader(path: Path) -> Any:
        folder = path.parent / "folder"
        if template is not None:
            shutil.copytree(template, folder)
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        for other in place.parent.glob("*.safetensors"):
            other.unlink()
        shutil.copy(path, place)
        return read(str(folder))

    return reader


def beside_samples(path: Path) -> Any:
    """Claims a folder of samples whose origin is the given file."""
    shutil.copy(path, path.with_name("origin.json"))
    claim(path.parent, {"seed": 1}, "name another folder")


def evaluated(path: Path) -> Any:
    """Returns the results on the card of a checkpoint."""
    place = path.parent / "evaluation" / "test" / "results.json"
    place.parent.mkdir(parents=True)
    shutil.copy(path, place)
    return results(path.parent / "last.ckpt")


def requested(path: Path) -> Any:
    """Reads a request to score an image."""
    body = {"prompts": ["a cat"], "samples": [base64.b64encode(path.read_bytes()).decode()]}
    return unpack_request(json.dumps(body).encode(), Limits())


tiny = cache(Tiny)

APPENDED = frozenset({"pickle behind tensors"})
"""What stands behind the end of a zip file is not read."""
DATE = frozenset({"an impossible date"})
"""A date is a text in a config."""
OBJECTS = frozenset({"half a surrogate pair", "a prompt that is a number", "a prompt that is a list", "a key twice"})
"""Objects of JSON without the keys that are read."""
HOOKED = frozenset({"a prompt that is a list"})
"""What is read of an object of HPDv2 is its prompt, here the list itself."""
ROWS = frozenset(
    {
        *(
            "a pickle",
            "an open quote",
            "a quote that ends early",
            "no such column",
            "a column twice",
            "not UTF-8",
            "empty",
            "a page",
        ),
        *("more fields than columns", "a pointer", "NUL"),
    }
)
"""Tables without the columns that are read: a run that was killed may have left half a row."""

FILES = {
    "checkpoint": Reader(SafeCheckpointIO().load_checkpoint, torch_files, "last.ckpt"),
    "weights .pt": Reader(read_state, torch_files, "weights.pt", APPENDED),
    "weights .pth": Reader(map_state, torch_files, "weights.pth", APPENDED),
    "weights .bin": Reader(map_state, torch_files, "weights.bin", APPENDED),
    "archive": Reader(read_archive, torch_files, "weights.ckpt", APPENDED),
    "weights .safetensors": Reader(map_state, safetensors_files, "weights.safetensors"),
    "kept copies": Reader(lambda path: unpack(path.read_bytes(), str(path)), safetensors_files, "copy.safetensors"),
    "the export's checkpoint": Reader(lambda path: read_weights(tiny(), str(path)), torch_files, "last.ckpt"),
    "config": Reader(read_config, yaml_files, "config.yaml", DATE),
    "sweep": Reader(read_sweep, yaml_files, "sweep.yaml"),
    "config of a run": Reader(in_run("config.yaml"), yaml_files, "config.yaml", DATE | {"not UTF-8", "empty"}),
    "config of the Python API": Reader(in_folder("config.yaml", load), yaml_files, "config.yaml"),
    "prompts .txt": Reader(lambda path: PromptFile(train=str(path)), text_files, "prompts.txt"),
    "prompts .jsonl": Reader(
        lambda path: PromptFile(train=str(path)), json_files, "prompts.jsonl", frozenset({"a text"})
    ),
    "prompts .csv": Reader(lambda path: PromptFile(train=str(path)), csv_files, "prompts.csv"),
    "prompts .parquet": Reader(lambda path: PromptFile(train=str(path)), parquet_files, "prompts.parquet"),
    "stages": Reader(read_stages, json_files, "stages.jsonl", frozenset({"empty"})),
    "GenEval": Reader(lambda path: read_checks([str(path)]), json_files, "metadata.jsonl"),
    "HPDv2": Reader(
        in_folder("train.json", lambda folder: HPDv2(folder, None)),
        json_files,
        "train.json",
        HOOKED,
    ),
    "Pick-a-Pic": Reader(in_folder("train-00000-of-00001-x.parquet", PickAPic), parquet_files, "train.parquet"),
    "settings of a network": Reader(lambda path: read_settings(str(path)), json_files, "config.json", OBJECTS),
    "plain JSON": Reader(read_json, json_files, "facts.json", OBJECTS | {"a list of lists", "null", "a text"}),
    "kept scores": Reader(lambda path: list(KeyedFile(path)), json_files, "scores.jsonl", frozenset({"empty"})),
    "origin of samples": Reader(beside_samples, json_files, "noted.json"),
    "results on a card": Reader(evaluated, json_files, "noted.json", OBJECTS),
    "facts of a run": Reader(in_run("run.json"), json_files, "run.json", OBJECTS),
    "results of a run": Reader(in_run("evaluation/test/results.json"), json_files, "results.json", OBJECTS),
    "samples of a run": Reader(in_run("samples/val/samples.json"), json_files, "samples.json", OBJECTS),
    "rows of a run": Reader(in_run("metrics.csv"), csv_files, "metrics.csv", ROWS),
    "history of a run": Reader(in_run("evaluation/fit/history.csv"), csv_files, "history.csv", ROWS),
    "reference image": Reader(pixels, image_files, "reference.png"),
    "image of a run": Reader(lambda path: media(path, "a cat"), image_files, "0000.png"),
    "image of a request": Reader(requested, image_files, "0000.png"),
    "encoded videos": Reader(
        lambda path: EncodedVideos("nowhere", cache=str(path))._kept(([], [])), torch_files, "clips.pt", APPENDED
    ),
    "sizes of a VideoCrafter": Reader(Architecture.read, json_files, "architecture.json"),
    "merges of a VideoCrafter": Reader(check_file, gzip_files, "merges.txt.gz", frozenset()),
    "token": Reader(lambda path: Token(file=str(path)).read(), text_files, "token"),
    "video": Reader(read_video, video_files, "0000.mp4"),
}
"""What reads one file."""


def stable_diffusion(folder: str) -> Any:
    """Reads all parts of a Stable Diffusion."""
    return StableDiffusion(folder, Frozen())


def clip(folder: str) -> Any:
    """Reads a model of transformers."""
    return pretrained(CLIPModel, folder)


def folders(sd: Path, vc: Path) -> dict[str, Reader]:
    """Returns what reads models: folders of which one file lies.

    Args:
        sd: A Stable Diffusion in the layout of diffusers.
        vc: A VideoCrafter in the layout of its authors.
    """
    found = {}
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        pickled = "pytorch_model" if part == "text_encoder" else stem
        for suffix, name, payloads in ((".bin", pickled, torch_files), (".safetensors", stem, safetensors_files)):
            read = in_folder(f"{part}/{name}{suffix}", stable_diffusion, sd)
            found[f"{part} {suffix}"] = Reader(read, payloads, f"{name}{suffix}")
    for name in (
        "unet/config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ):
        accepts = OBJECTS if "scheduler" in name else frozenset()
        found[name] = Reader(in_folder(name, stable_diffusion, sd), json_files, Path(name).name, accepts)
    for name, payloads in (("pytorch_model.bin", torch_files), ("model.safetensors", safetensors_files)):
        found[f"CLIP {name}"] = Reader(in_folder(name, clip, FOLDER), payloads, name)
    found["CLIP config.json"] = Reader(in_folder("config.json", clip, FOLDER), json_files, "config.json")
    found["VideoCrafter .ckpt"] = Reader(in_folder("model.ckpt", VideoCrafter, vc), torch_files, "model.ckpt")
    found["single file .ckpt"] = Reader(lambda path: stable_diffusion(str(path)), torch_files, "sd.ckpt")
    found["single file .safetensors"] = Reader(
        lambda path: stable_diffusion(str(path)), safetensors_files, "sd.safetensors"
    )
    found["LoRA"] = Reader(lambda path: load_lora(unet(), str(path), "default"), safetensors_files, "lora.safetensors")
    found["LoRA .bin"] = Reader(lambda path: load_lora(unet(), str(path), "default"), torch_files, "lora.bin")
    found["HPSv2"] = Reader(lambda path: HPSv2(str(path), verify=False), torch_files, "HPS.pt")
    found["Aesthetic"] = Reader(
        lambda path: Aesthetic(str(aes_files()[0]), str(path), verify=False), torch_files, "head.pth"
    )
    found["ImageReward"] = Reader(lambda path: ImageReward(str(path), verify=False), torch_files, "ImageReward.pt")
    return found
