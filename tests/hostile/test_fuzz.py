"""Random input: nothing ends in a traceback, nothing is damaged, and what is wrong is said in words of this program.

``make test`` runs 200 cases, the same ones each time; ``make fuzz`` runs 2,000 new ones (``RLR_FUZZ`` sets the number).
"""

import copy
import json
import os
import re
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from rlr.callbacks import SafeCheckpointIO
from rlr.cli import main
from rlr.cli.user_errors import ERRORS
from rlr.data import PromptFile
from rlr.evaluation.report import Facts, Table, page
from rlr.evaluation.vbench.naming import check_names
from rlr.io.containers import check_kind
from rlr.io.text import check_text, escaped, quote
from rlr.io.video import read_video, write_video
from rlr.records.comparison import write_comparison
from rlr.records.run_page import write_page
from rlr.records.table import runs
from rlr.rewards import FunctionReward
from rlr.rewards.remote.client import read_facts, read_number
from rlr.rewards.remote.protocol import Limits, Refused, pack, unpack
from rlr.toy.models import Tiny
from tests.cli.conftest import CONFIG
from tests.hostile.strategies import PROMPTS, TEXTS, VALUES, altered, configs, mutated, rewards
from tests.modules.toy import align, prompts, run

CASES = int(os.environ.get("RLR_FUZZ", 200))
"""The number of cases of this file together."""


def cases(share: int, shrink: bool = True) -> Any:
    """Settings of a test that runs its share of 200 cases; to make a case smaller takes hundreds more."""
    return settings(
        max_examples=max(1, share * CASES // 200),
        derandomize=CASES == 200,
        database=None,
        deadline=None,
        print_blob=True,
        phases=set(Phase) - (set() if shrink else {Phase.shrink, Phase.explain}),
        suppress_health_check=list(HealthCheck),
    )


SAID = (
    *(
        "has no attribute",
        "not supported between",
        "is not iterable",
        "unhashable",
        "codec can't",
        "not subscriptable",
        "NoneType",
    ),
    *(
        "cannot convert",
        "positional argument",
        "unexpected keyword",
        "is not callable",
        r"takes \d+ ",
        "list index",
        "string indices",
    ),
    *("NoneType", "<class '", "object at 0x", "invalid literal", "Expected a "),
)
PYTHON = re.compile("|".join(SAID))
"""What Python says to programmers."""


def tried(call: Callable[[], Any], *kinds: type[BaseException]) -> tuple[Any, Any]:
    """Returns what a call returns, and the error of one of some kinds that it raises."""
    try:
        return call(), None
    except kinds as error:
        return None, error


def in_words(call: Callable[[], Any], *names: str) -> Any:
    """Returns what a call returns, or None where it fails in a sentence; everything else is raised."""
    found, error = tried(call, *ERRORS)
    if error is not None:
        said = " ".join(str(error).split())
        assert len(said) > 10, repr(error)
        assert not PYTHON.search(said), said
        assert not names or any(name in said for name in names), said
    return found


def as_command(words: list[str], capsys: Any) -> None:
    """Runs a command, which may fail with status 2 and one sentence alone."""
    capsys.readouterr()
    _, left = tried(lambda: main(words), SystemExit)
    said = capsys.readouterr().err
    if left is not None:
        stated = [line for line in said.splitlines() if line.startswith("error: ")]
        assert left.code in (0, 2), said
        assert len(stated) == (left.code == 2), said
        assert not PYTHON.search(" ".join(stated)), stated


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """A folder of its own, no wishes of the environment, and no warnings."""
    monkeypatch.delenv("RLR_TRACEBACK", raising=False)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.chdir(folder)
        yield


class Folder:
    """A folder of one case, with files that must stay as they are."""

    def __enter__(self) -> Path:
        self.temporary = TemporaryDirectory()
        self.path = Path(self.temporary.name)
        self.kept = {self.path / "notes.txt": b"mine", self.path / "out" / "samples.txt": b"mine"}
        for file, content in self.kept.items():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        return self.path

    def __exit__(self, *raised: object) -> None:
        intact = all(file.read_bytes() == content for file, content in self.kept.items())
        parts = [file for file in self.path.rglob("*.part")]
        self.temporary.cleanup()
        assert intact
        assert parts == []


# ---------------------------------------------------------------- configs


def command(text: bytes, capsys: Any) -> None:
    """Trains with a config for two updates; a mistake ends with status 2 and one sentence, and no file is damaged."""
    with Folder() as folder:
        config = folder / "config.yaml"
        config.write_bytes(text)
        bounds = (
            "trainer.max_steps=2",
            "trainer.max_epochs=1",
            "trainer.limit_train_batches=2",
            "trainer.limit_val_batches=1",
        )
        words = [
            "fit",
            f"--config={config}",
            *(f"--{bound}" for bound in bounds),
            f"--trainer.default_root_dir={folder / 'out'}",
        ]
        as_command(words, capsys)
        assert config.read_bytes() == text
        for file in folder.rglob("*.ckpt"):
            SafeCheckpointIO().load_checkpoint(file)


@cases(45, shrink=False)
@given(text=configs())
@example(text=CONFIG.encode())
@example(text=CONFIG.replace("seed: ${seed_everything}", "seed: ${").encode())
@example(text=CONFIG.replace("lr: 0.01", "lr: null").encode())
@example(text=CONFIG.replace("class_path: DDIM", "class_path: [a]").encode())
def test_configs(text, capsys):
    command(text, capsys)


SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*/tiny_*.yaml"))


@cases(10, shrink=False)
@given(file=st.sampled_from(SHIPPED), data=st.data())
def test_other_values_in_configs_of_this_library(file, data, capsys):
    """They are parsed, and nothing is built."""
    found = data.draw(altered(yaml.safe_load(file.read_text(encoding="utf-8"))))
    with Folder() as folder:
        # what a config inherits is beside it
        for other in file.parent.parent.rglob("*.yaml"):
            write(folder / other.relative_to(file.parent.parent), other.read_bytes())
        config = folder / file.relative_to(file.parent.parent)
        config.write_text(json.dumps(found, default=str))
        as_command(["fit", f"--config={config}", "--print_config"], capsys)


FOUND = {
    "three values for a pair": (
        "estimator:\n      class_path: DirectAlign\n      init_args: {step_range: [1, 2, 3]}",
        r"model\.estimator\.step_range: expected ",
    ),
    "no arguments": (
        "estimator:\n      class_path: RLR\n      init_args:",
        r"model\.estimator\.init_args: expected arguments by name, got null",
    ),
}
"""What ``make fuzz`` has found in configs: estimators that the small config gets."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_in_configs(name, capsys):
    old = CONFIG[CONFIG.index("estimator:") : CONFIG.index("    optimization:")].rstrip()
    with Folder() as folder:
        new, stated = FOUND[name]
        (folder / "config.yaml").write_text(CONFIG.replace(old, new))
        with pytest.raises(SystemExit) as left:
            main(["fit", f"--config={folder}/config.yaml", f"--trainer.default_root_dir={folder}/out"])
        said = capsys.readouterr().err
    assert left.value.code == 2
    assert re.search(rf"error: {stated}.*; correct it in the config or on the command line\n", said)


# ---------------------------------------------------------------- prompts


@cases(45)
@given(kind=st.sampled_from(sorted(PROMPTS)), data=st.data())
def test_files_of_prompts(kind, data):
    content = data.draw(PROMPTS[kind] | mutated(b'prompt\n"a cat"\n{"prompt": "a dog"}\na bird\n'))
    with Folder() as folder:
        file = folder / f"prompts{kind}"
        file.write_bytes(content)
        found = in_words(lambda: PromptFile(train=str(file)), str(file))
        assert file.read_bytes() == content
    if found is not None:
        read = found.prompts("train")
        assert read
        assert len(set(read)) == len(read)
        assert all(prompt.strip() == prompt and prompt and prompt.encode() for prompt in read)


@cases(10)
@given(texts=st.lists(TEXTS.filter(lambda text: text.strip() and text.isprintable()), min_size=1, max_size=5))
def test_what_is_written_as_json_lines_is_read(texts):
    with Folder() as folder:
        file = folder / "prompts.jsonl"
        file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
        assert PromptFile(train=str(file)).prompts("train") == list(dict.fromkeys(text.strip() for text in texts))


@cache
def tiny() -> Tiny:
    return Tiny()


@cases(20)
@given(text=TEXTS)
@example(text="\ud800")
def test_prompts(text):
    assert len(quote(text)) <= 80 * 10 + 2
    assert "\n" not in escaped(text)
    in_words(lambda: check_names([text]))
    if in_words(lambda: check_text(text, "the prompt"), "the prompt") is None:
        return
    assert tiny().encode([text]).tensors
    shown = page(text, text, [Table(text, (text,), [(text,)]), Facts(text, {text: text})])
    assert shown.encode()


# ---------------------------------------------------------------- rewards


@cases(20)
@given(found=rewards())
@example(found=None)
@example(found=torch.zeros(2).to_sparse())
@example(found=[1, 2])
@example(found=[None, 1.0])
def test_what_a_reward_returns(found):
    """Either it is one number a sample, or the sentence names the reward."""
    score = in_words(lambda: FunctionReward(lambda samples, prompts: found), "reward")
    scores = score and in_words(lambda: score(torch.zeros(2, 3, 2, 2), ["a", "b"]), "reward")
    if scores is not None:
        assert scores.shape == (2,)
        assert scores.is_floating_point()


@cases(5)
@given(found=rewards())
@example(found=torch.tensor([1.0, 2.0]))
@example(found=torch.tensor([torch.nan, 1.0]))
@example(found=[-1e38, 1e38])
def test_training_with_what_a_reward_returns(found):
    """Weights stay finite."""
    reward = in_words(lambda: FunctionReward(lambda samples, prompts: found), "reward")
    if reward is None:
        return
    module = align(reward=reward, max_bad_steps=9)
    in_words(lambda: run(module, prompts(2), 1))
    assert all(weight.isfinite().all() for weight in module.parameters())


@cases(10)
@given(facts=altered({"label": "x", "scales": {"x100": 100.0}, "higher_is_better": True}), score=VALUES)
def test_what_a_server_answers(facts, score):
    if isinstance(facts, dict):
        in_words(lambda: read_facts(facts, "http://127.0.0.1:1"), "http://127.0.0.1:1")
    assert isinstance(read_number(score), float)


REQUEST = pack(torch.zeros(2, 3, 2, 2), ["a", "b"])


@cases(10)
@given(
    body=altered(REQUEST).map(lambda value: json.dumps(value, default=str).encode())
    | mutated(json.dumps(REQUEST).encode())
)
def test_what_a_server_is_asked(body):
    found, error = tried(lambda: unpack(body, Limits()), Refused)
    if error is not None:
        assert str(error).isprintable()
        assert 400 <= error.status < 500
    else:
        samples, words = found
        assert len(samples) == len(words) > 0
        assert 0 <= samples.min() <= samples.max() <= 1


# ---------------------------------------------------------------- checkpoints


@cache
def checkpoint() -> bytes:
    """A checkpoint of a short run."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(CONFIG)
        main(
            [
                "fit",
                f"--config={folder}/config.yaml",
                f"--trainer.default_root_dir={folder}/out",
                "--trainer.max_steps=1",
            ]
        )
        return (Path(folder) / "out" / "last.ckpt").read_bytes()


@cases(15)
@given(data=st.data())
def test_checkpoints(data):
    content = data.draw(mutated(checkpoint()))
    with Folder() as folder:
        file = folder / "last.ckpt"
        file.write_bytes(content)
        found = in_words(lambda: SafeCheckpointIO().load_checkpoint(file), str(file))
        assert file.read_bytes() == content
    if found is not None:
        whole = read_checkpoint()["state_dict"]
        assert found["state_dict"].keys() == whole.keys()
        assert all(torch.equal(found["state_dict"][name], weight) for name, weight in whole.items())


@cache
def read_checkpoint() -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "last.ckpt"
        file.write_bytes(checkpoint())
        return SafeCheckpointIO().load_checkpoint(file)


@cases(5, shrink=False)
@given(data=st.data())
def test_a_run_that_is_resumed_from_other_values(data, capsys):
    """A whole file, whose content is not that of a checkpoint of this run."""
    found = data.draw(altered(read_checkpoint(), st.none() | st.integers(-1, 2) | TEXTS | st.just([]) | st.just({})))
    with Folder() as folder:
        (folder / "config.yaml").write_text(CONFIG)
        torch.save(found, folder / "other.ckpt")
        words = [
            "fit",
            f"--config={folder}/config.yaml",
            f"--trainer.default_root_dir={folder}/out",
            f"--ckpt_path={folder}/other.ckpt",
        ]
        as_command([*words, "--trainer.max_steps=2"], capsys)


def without_moment(found: dict[str, Any]) -> None:
    del found["optimizer_states"][0]["state"][0]["exp_avg_sq"]


LOST: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "loops": (lambda found: found.pop("loops"), "has no loops: it holds weights and not the state of a training"),
    "callbacks": (lambda found: found.pop("callbacks"), "has no callbacks: it holds weights"),
    "a moment of Adam": (without_moment, r"optimizer_states\.0\.state\.0\.exp_avg_sq is missing"),
    "a part of NumPy's state": (
        lambda found: found["alignment"]["random"]["numpy"].pop(),
        "does not hold the states of the random generators",
    ),
    "the version": (lambda found: found.pop("pytorch-lightning_version"), ""),
}
"""What ``make fuzz`` has found to be missed in checkpoints, and what is said; nothing where the run goes on."""


@pytest.mark.parametrize("name", LOST)
def test_a_checkpoint_that_lacks_a_part(name, capsys):
    lose, said = LOST[name]
    found = copy.deepcopy(read_checkpoint())
    lose(found)
    with Folder() as folder:
        (folder / "config.yaml").write_text(CONFIG)
        torch.save(found, folder / "other.ckpt")
        words = [
            "fit",
            f"--config={folder}/config.yaml",
            f"--trainer.default_root_dir={folder}/out",
            "--trainer.max_steps=2",
        ]
        capsys.readouterr()
        _, left = tried(lambda: main([*words, f"--ckpt_path={folder}/other.ckpt"]), SystemExit)
    assert (left and left.code) == (2 if said else None)
    assert re.search(said, capsys.readouterr().err)


# ---------------------------------------------------------------- videos


@cache
def film() -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "a.mp4"
        write_video(file, torch.arange(4 * 3 * 32 * 32).view(4, 3, 32, 32) % 251 / 251, 8)
        return file.read_bytes()


def watch(file: Path) -> int:
    """Reads a video in a process of its own, and returns its status: 0 if all is well, or how it was killed."""
    child = os.fork()
    if not child:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            video = in_words(lambda: read_video(file), str(file))
            assert video is None or (video.frames.ndim == 4 and video.frames.shape[1] == 3)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@cases(10)
@given(data=st.data())
def test_videos(data):
    content = data.draw(mutated(film()) | st.binary(max_size=99))
    with Folder() as folder:
        file = folder / "a.mp4"
        file.write_bytes(content)
        in_words(lambda: check_kind(file), str(file))
        assert watch(file) == 0
        assert file.read_bytes() == content


# ---------------------------------------------------------------- the folder of a run

NUMBERS = {"base": 0.0, "aligned": 1.0, "difference": 1.0, "low": 0.5, "high": 1.5}
SET = {
    "results": {"x": NUMBERS},
    "scores": {"x": [[1.0], [2.0]]},
    "base_scores": {"x": [[0.0], [0.5]]},
    "prompts": ["a", "b"],
}
RUN: dict[str, Any] = {
    "config.yaml": {
        "seed_everything": 1,
        "trainer": {"max_steps": 3},
        "model": {"class_path": "X", "init_args": {"lr": 0.1}},
    },
    "run.json": {
        "commands": [{"command": "fit", "line": "python", "summary": "s", "versions": {"torch": "2"}, "device": "cpu"}]
    },
    "evaluation/test/results.json": {"update": 2, "seed": 1, "sets": {"val": SET}},
    "samples/val/samples.json": {
        "set": "val",
        "update": 2,
        "suffix": ".png",
        "metrics": ["x"],
        "samples": [{"prompt": "a", "files": {"aligned": "0", "base": "1"}, "scores": {"aligned": {"x": 1.0}}}],
    },
}
ROWS = b"step,updates,reward/mean,reward/x,seconds/update\n0,1,2.0,2.0,1\n1,2,3.0,3.0,1\n2,3,1e30,-1e30,1\n"
HISTORY = b"update,prompts,measurement,base,aligned,low,high\n0,val,x,0,0,0,0\n2,val,x,0,1,0.5,1.5\n2,val,y,0,1,,\n4,val,y,0,2,,\n"


@cases(15)
@given(name=st.sampled_from([*RUN, "metrics.csv", "history.csv"]), data=st.data())
def test_the_folder_of_a_run(name, data):
    """The page of the run, a comparison and the table of runs are written, or the sentence names the file."""
    with Folder() as folder:
        for run_, others in (("one", True), ("two", False)):
            for file, content in RUN.items():
                hostile = others and file == name
                text = json.dumps(data.draw(altered(content)) if hostile else content, default=str)
                write(
                    folder / run_ / file,
                    data.draw(mutated(text.encode())) if hostile and data.draw(st.booleans()) else text.encode(),
                )
            for file, rows in (("metrics.csv", ROWS), ("evaluation/fit/history.csv", HISTORY)):
                write(folder / run_ / file, data.draw(mutated(rows)) if others and file.endswith(name) else rows)
        both = [folder / "one", folder / "two"]
        in_words(lambda: write_page(both[0]), str(folder))
        in_words(lambda: write_comparison(both, folder / "comparison"), str(folder))
        in_words(lambda: runs(both).csv(), str(folder))


def write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def test_all_cases_together_are_as_many_as_said():
    source = Path(__file__).read_text(encoding="utf-8")
    assert sum(int(share) for share in re.findall(r"^@cases\((\d+)", source, re.MULTILINE)) >= 200
