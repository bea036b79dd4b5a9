"""No file that a user names runs code, ends a command with a traceback, or is read as something that it is not."""

import ast
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, CLIPModel

from rlr.cli.user_errors import ERRORS
from rlr.io.video import read_video, write_video
from rlr.models import Frozen, StableDiffusion
from rlr.models.folder import ModelFolder
from rlr.rewards.networks.pretrained import pretrained
from rlr.rewards.remote.protocol import Refused
from tests.hostile.payloads import torch_files
from tests.hostile.readers import FILES, Reader, folders
from tests.rewards.folder import FOLDER

ROOT = Path(__file__).parents[2]
OURS = ("rlr.", "builtins")
"""Where the classes of our errors are; a class of a library says that nobody has put its error into words."""


def outcome(read, file: Path, mark: Path) -> str | None:
    """Returns what is wrong with how a file is refused; "accepted" where it is not, and None where all is right."""
    try:
        read(file)
    except ERRORS as error:
        said = str(error)
        named = file.stem in said or str(file.parent) in said or isinstance(error, Refused)
        ours = type(error).__module__.startswith(OURS) and not isinstance(error, UnicodeError)
        one = said.isprintable() and 20 < len(said) < 1200
        found = None if named and ours and one else f"{type(error).__name__}: {said[:200]}"
    # everything else is a traceback
    except BaseException as error:
        found = f"a traceback, {type(error).__name__}: {str(error)[:200]}"
    else:
        found = "accepted"
    return "code has run" if mark.exists() else found


def check(reader: Reader, folder: Path, monkeypatch) -> int:
    """Reads every payload, and returns how many there are."""
    wrong: dict[str, str] = {}
    mark = folder / "ran"
    payloads = reader.payloads(mark)
    for number, (name, content) in enumerate(payloads.items()):
        place = folder / str(number)
        place.mkdir()
        (place / reader.name).write_bytes(content)
        monkeypatch.chdir(place)
        found = outcome(reader.read, place / reader.name, mark)
        if found != ("accepted" if name in reader.accepts else None):
            wrong[name] = str(found)
        if mark.exists():
            mark.rmdir()
        shutil.rmtree(place, ignore_errors=True)
    assert wrong == {}
    return len(payloads)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_lies_is_refused_in_one_sentence(name, tmp_path, monkeypatch):
    assert check(FILES[name], tmp_path, monkeypatch) > 5


@pytest.fixture(scope="module")
def models(random_sd, random_vc):
    return folders(random_sd(), random_vc)


MODELS = tuple(folders(Path(), Path()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_with_such_a_file_is_refused_in_one_sentence(name, models, tmp_path, monkeypatch):
    assert check(models[name], tmp_path, monkeypatch) > 5


def test_the_payloads_run_where_nobody_prevents_it(tmp_path):
    """Otherwise the tests above would show nothing."""
    for name in ("raw pickle", "raw pickle of protocol 0"):
        mark = tmp_path / "ran"
        pickle.loads(torch_files(mark)[name])
        assert mark.is_dir()
        mark.rmdir()


def test_the_law_can_fail(tmp_path):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"x")

    def raw(path):
        raise KeyError("weight")

    def words(path):
        raise ValueError("no")

    def runs(path):
        (tmp_path / "ran").mkdir()

    mark = tmp_path / "ran"
    assert "traceback" in outcome(raw, file, mark)
    assert outcome(words, file, mark) == "ValueError: no"
    assert outcome(lambda path: None, file, mark) == "accepted"
    assert outcome(runs, file, mark) == "code has run"


def test_a_playlist_would_be_followed(tmp_path, monkeypatch):
    """The library itself reads the file that a list of files names."""
    av = pytest.importorskip("av")
    write_video(tmp_path / "secret.mp4", torch.zeros(2, 3, 32, 32), 8)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    monkeypatch.chdir(tmp_path)
    with av.open("list.mp4") as container:
        assert len(list(container.decode(video=0))) == 2
    with pytest.raises(ValueError, match=r"list\.mp4 is damaged or no video \(it begins with b'ffconcat'\)"):
        read_video("list.mp4")


# ---------------------------------------------------------------- code of others


def with_code(folder: Path, mark: Path) -> Path:
    """Puts a module beside the files of a folder, and names it in each of its settings."""
    source = f"import os\nos.mkdir({str(mark)!r})\nclass Evil: pass\nEvilConfig = EvilTokenizer = EvilModel = Evil\n"
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        for name in ("evil.py", "modeling_evil.py", "pipeline.py", "__init__.py"):
            (place / name).write_text(source)
        for file in (place / name for name in CODED):
            settings = json.loads(file.read_text()) if file.is_file() else {}
            file.write_text(json.dumps({**settings, **AUTO_MAP}))
    return folder


CODED = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "model_index.json",
)
AUTO_MAP = {
    "auto_map": {
        "AutoConfig": "evil.EvilConfig",
        "AutoModel": "evil.EvilModel",
        "AutoTokenizer": ["evil.EvilTokenizer", None],
        "AutoProcessor": "evil.Evil",
        "AutoImageProcessor": "evil.Evil",
    },
    "custom_pipelines": {"text-to-image": {"impl": "pipeline.Evil"}},
}
"""What makes the libraries import a module of a folder, if they may."""


@pytest.fixture
def yes(monkeypatch):
    """A user who answers yes to whatever a library asks at the terminal."""
    asked: list[str] = []

    def answer(text: object = "") -> str:
        asked.append(str(text))
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    return asked


AUTO = {
    "tokenizer": lambda folder: pretrained(AutoTokenizer, folder),
    "settings": lambda folder: pretrained(AutoConfig, folder),
    "model": lambda folder: pretrained(CLIPModel, folder),
    "processor": lambda folder: ModelFolder(folder, "a FLUX.2", ("",)).tokenizer(AutoProcessor, ""),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", AUTO)
def test_code_beside_a_model_of_transformers_is_not_run(kind, yes, tmp_path):
    folder = with_code(shutil.copytree(FOLDER, tmp_path / "model"), tmp_path / "ran")
    if kind != "model":
        (folder / "config.json").write_text(json.dumps({"model_type": "evil", **AUTO_MAP}))
    found = outcome(AUTO[kind], folder, tmp_path / "ran")
    # what has a class of the library is read by that
    assert (found, yes) == (None if kind == "settings" else "accepted", [])


def test_the_library_itself_asks_whether_to_run_it(yes, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = with_code(shutil.copytree(FOLDER, tmp_path / "model"), tmp_path / "ran")
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", **AUTO_MAP}))
    with pytest.raises(AttributeError):
        AutoConfig.from_pretrained(folder)
    assert len(yes) == 1
    assert (tmp_path / "ran").is_dir()


@pytest.mark.filterwarnings("ignore")
def test_code_beside_a_stable_diffusion_is_not_run(random_sd, yes, tmp_path):
    folder = with_code(shutil.copytree(random_sd(), tmp_path / "sd"), tmp_path / "ran")
    assert outcome(lambda path: StableDiffusion(str(path), Frozen()), folder, tmp_path / "ran") == "accepted"
    for part in ("unet", "vae"):
        file = folder / part / "config.json"
        stated = file.read_text()
        file.write_text(json.dumps({**json.loads(stated), "_class_name": "EvilModel"}))
        assert outcome(lambda path: StableDiffusion(str(path), Frozen()), folder, tmp_path / "ran") is None
        file.write_text(stated)
    assert yes == []


# ---------------------------------------------------------------- the table is complete

READING = {
    *("read_text", "read_bytes", "open", "loads", "safe_load", "load_file", "safe_open", "VideoReader", "ParquetFile"),
    *("DictReader", "ZipFile", "decompress", "from_pretrained", "from_single_file", "load_config", "lora_state_dict"),
    *("get_config_dict", "torch.load", "yaml.load", "json.load", "np.load", "load"),
}
"""The functions and methods that read files, or what was read from them."""

OWN = "what this program or its package holds"
COVERED = {
    "callbacks/origin.py": "origin of samples",
    "callbacks/run_config.py": OWN,
    "cli/command_line.py": OWN,
    "cli/config_inheritance.py": "config",
    "cli/difference.py": OWN,
    "cli/machine.py": "the system's files",
    "cli/output.py": "the null device",
    "cli/run_folder.py": "config of the Python API",
    "cli/source_index.py": OWN,
    "cli/wandb_run.py": "a name of W&B, in which any text may stand",
    "data/cleaning.py": OWN,
    "data/files.py": "prompts .jsonl",
    "data/motion.py": OWN,
    "data/parquet.py": "prompts .parquet",
    "data/prompt_file.py": "prompts .csv",
    "data/staged/endpoint.py": "an answer over HTTP: tests/data/test_endpoint.py",
    "data/staged/stages.py": "stages",
    "evaluation/provenance.py": OWN,
    "evaluation/report.py": OWN,
    "evaluation/vbench/scoring.py": "what its own worker says",
    "evaluation/vbench/worker.py": "what its own parent has written",
    "io/atomic.py": "what was written, for the disk",
    "io/config_files.py": "config",
    "io/containers.py": "video",
    "io/csv_file.py": "rows of a run",
    "io/http.py": "an answer over HTTP: tests/io/test_http.py",
    "io/hub.py": "checksums of any bytes",
    "io/image_file.py": "reference image",
    "io/json_file.py": "plain JSON",
    "io/keyed_file.py": "kept scores",
    "io/locks.py": "a lock, whose content is not read",
    "io/video.py": "video",
    "io/file_kind.py": "weights .safetensors",
    "io/weights.py": "weights .safetensors",
    "lazy.py": OWN,
    "models/export/merged.py": "what was written, to compare it",
    "models/export/official_videocrafter.py": "merges of a VideoCrafter",
    "models/export/peft_adapter.py": "what was written, to compare it",
    "models/export/single_file.py": "what was written, to compare it",
    "models/folder.py": "unet .bin",
    "models/integrity.py": "merges of a VideoCrafter",
    "models/lora_file.py": "LoRA",
    "models/placement.py": "kept copies",
    "models/single_file.py": "single file .ckpt",
    "models/videocrafter/architecture.py": "sizes of a VideoCrafter",
    "modules/profiler.py": "the system's files",
    "records/gallery.py": "image of a run",
    "records/record.py": "results of a run",
    "rewards/geneval/metadata.py": "GenEval",
    "rewards/judge/reward.py": "an answer over HTTP: tests/rewards/judge",
    "rewards/networks/pretrained.py": "CLIP pytorch_model.bin",
    "rewards/remote/protocol.py": "image of a request",
    "rewards/remote/token.py": "token",
    "toy/data/scenes.py": "an autoencoder that the pretraining has written",
    "toy/data/videos.py": "encoded videos",
    "toy/demo/__main__.py": OWN,
    "toy/pretraining/contrastive.py": "an autoencoder that the pretraining has written",
    "toy/pretraining/denoiser.py": "an autoencoder that the pretraining has written",
    "toy/pretraining/video.py": "an autoencoder that the pretraining has written",
}
"""The files of ``rlr`` that read something, and the reader of the table that goes through each, or what it reads."""


def reads(tree: ast.AST) -> bool:
    names = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    # a bare `load` is a function that was imported; the methods of that name are of all kinds
    return any(name in READING or name.rpartition(".")[2] in READING - {"load"} for name in names)


def test_every_place_that_reads_a_file_is_in_the_table():
    package = ROOT / "rlr"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if reads(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set(COVERED)
    named = {reader for reader in COVERED.values() if reader in FILES or reader in MODELS}
    assert len(named) > 25


def test_a_new_place_would_be_found():
    for code in ("torch.load(path)", "path.read_text()", "np.load(path)", "load(data)", "kind.from_pretrained(folder)"):
        assert reads(ast.parse(code))
    for code in ("self.state.load(checkpoint)", "path.write_text(text)", "json.dumps(value)"):
        assert not reads(ast.parse(code))
