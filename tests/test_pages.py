"""Commands and snippets of the pages that no other test names are valid, and run where a machine without weights can run them."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rlr.cli import main
from rlr.cli.sweep import main as sweep
from tests.test_project import ROOT, tracked

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *tracked("docs/*.md"),
        *tracked("experiments/**/README.md"),
    ]
}
ELSEWHERE = ("docs/quickstart.md", "docs/use.md", "docs/evaluation.md")
"""Pages whose snippets tests of their own run."""


def blocks(page: str, kind: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language == kind]


def lines(page: str) -> Iterator[list[str]]:
    """Yields the command lines of a page, word by word, without comments and environment variables."""
    for line in "".join(blocks(page, "")).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*|nohup", words[0]):
            words = words[1:]
        yield words


def commands(*starts: str) -> list[list[str]]:
    """The commands of all pages that start with words, each once."""
    found = [words for page in PAGES for words in lines(page) if words[: len(starts)] == [*starts]]
    # … stands for the checkpoint of the reader
    found = [words[: words.index("…") - 1] if "…" in words else words for words in found]
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


# ---------------------------------------------------------------- commands

TRAIN = [words[2:] for words in [*commands("python", "train.py"), *[["", *w] for w in commands("rlr")]]]
SHIPPED = [words for words in TRAIN if any(word.startswith("configs/") for word in words)]


@pytest.mark.parametrize("words", SHIPPED, ids=" ".join)
def test_a_command_on_a_shipped_config_is_valid(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    printed = "--diff" if "--diff" in words else "--print_config"
    with pytest.raises(SystemExit) as end:
        main([*words, *([] if printed in words else [printed])])
    assert not end.value.code
    stated = capsys.readouterr().out
    assert printed == "--diff" or yaml.safe_load(stated)["model"]["class_path"]
    assert printed != "--diff" or "model.estimator: rlr.HalfOrderRLR → rlr.HalfOrder\n" in stated


def test_many_commands_are_found() -> None:
    assert {words[0] for words in TRAIN} == {
        "fit", "validate", "test", "predict", "export", "analyze", "page", "compare"
    }  # fmt: skip
    assert len(SHIPPED) >= 15


@pytest.fixture(scope="module")
def finished(random_sd: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of one update under the names of the pages."""
    root = tmp_path_factory.mktemp("pages")
    config = f"""
model:
  class_path: ImageAlignment
  init_args:
    model: {{class_path: StableDiffusion, init_args: {{path: {random_sd()}}}}}
    sampler: {{class_path: DDIM, init_args: {{steps: 4}}}}
    reward: Brightness
    estimator: FirstOrder
    optimization: {{lr: 0.1}}
data: {{class_path: Prompts, init_args: {{train: [a red circle], val: [a blue square], batch_size: 1}}}}
trainer: {{accelerator: cpu, max_epochs: -1, max_steps: 1, enable_progress_bar: false}}
"""
    (root / "mine.yaml").write_text(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        main(["fit", "--config", "mine.yaml", "--name", "mine"])
    for name in ("tiny_rlr", "first", "second", "rlr-1", "draft-1"):
        shutil.copytree(root / "runs" / "mine", root / "runs" / name)
    return root


# the quickstart, and the exporters that a page adds, have tests of their own
ON_RUNS = [
    words for words in TRAIN
    if words[1:] and words[1].startswith("runs/") and words[0] in ("validate", "test", "predict", "page", "compare")
    and not set(words) & {"runs/small", "held_out.txt"}
]  # fmt: skip


def test_commands_on_runs_run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    assert {words[0] for words in ON_RUNS} == {"validate", "test", "predict", "page", "compare"}
    for words in ON_RUNS:
        main(words)
    assert (finished / "runs" / "comparison" / "index.html").is_file()
    assert list((finished / "runs" / "mine" / "predictions").rglob("*.png"))


def test_commands_on_a_config_of_the_user_are_valid(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished)
    found = [words for words in TRAIN if "mine.yaml" in words and words[0] in ("analyze", "predict")]
    assert len(found) >= 3
    for words in found:
        with pytest.raises(SystemExit) as end:
            main([*words, "--print_config"])
        assert not end.value.code
        capsys.readouterr()


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    found = {words[1] for words in commands("make")}
    assert len(found) >= 8
    assert found <= targets


def test_sweeps_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    found = commands("python", "-m", "rlr.cli.sweep")
    assert len(found) == 3
    for words in found:
        # what runs for hours is listed
        assert sweep([*words[3:], *([] if "--list" in words else ["--list"])]) == 0
        assert "lr" in capsys.readouterr().out


def test_options_of_the_dashboard_exist() -> None:
    from rlr.cli.dashboard.__main__ import parser

    for words in commands("python", "-m", "rlr.cli.dashboard"):
        assert parser().parse_args(words[3:]).entity == "my-team"


def test_experiments_and_their_options_exist() -> None:
    from experiments.cli import parse
    from experiments.registry import EXPERIMENTS
    from experiments.settings import SETTINGS

    found = commands("python", "experiments/run.py")
    names = {parse(words[2:], [e.name for e in EXPERIMENTS], sorted(SETTINGS)).name for words in found}
    assert {"table1", "table2", "figure4"} <= names


# ---------------------------------------------------------------- snippets

BASE = """
model:
  class_path: ImageAlignment
  init_args:
    model: {class_path: StableDiffusion, init_args: {path: nowhere}}
    sampler: DDIM
    reward: Brightness
    estimator: FirstOrder
data: {class_path: Prompts, init_args: {train: [a]}}
trainer: {max_steps: 1}
"""
PLACES = {
    "class_path": ("model", "init_args", "estimator"),
    "trainable": ("model", "init_args", "model", "init_args"),
    "writer": ("data", "init_args"),
    **dict.fromkeys(("reward", "estimator", "memory", "sampler"), ("model", "init_args")),
}
"""Where a snippet stands in a config, by its first key."""
FOREIGN = {"my_package.models.MyVideoModel": "TinyVideo", "parts/": f"{ROOT / 'configs' / 'image' / 'parts'}/"}
YAML = [
    (page, text)
    for page in PAGES
    for text in blocks(page, "yaml")
    if page.startswith("docs/") and page not in ELSEWHERE
]


def placed(text: str) -> dict[str, Any]:
    """Returns a snippet as a part of a config; a data set of stages has further arguments."""
    content: dict[str, Any] = yaml.safe_load(text)
    first = "sampler" if "sampler" in content else next(iter(content))
    content = {"class_path": "DCoT", "init_args": content} if first == "writer" else content
    for key in reversed(("data",) if first == "writer" else PLACES.get(first, ())):
        content = {key: content}
    model = content.get("model", {})
    # a base model, and no alignment of one
    if not str(model.get("class_path", "Alignment")).endswith("Alignment"):
        return {"model": {"init_args": content}}
    return content


@pytest.mark.parametrize(("page", "text"), YAML, ids=[f"{page}-{k}" for k, (page, _) in enumerate(YAML)])
def test_a_snippet_is_a_valid_part_of_a_config(
    page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, here in FOREIGN.items():
        text = text.replace(name, here)
    if "port:" in text:
        from rlr.rewards.remote.server import main as serve

        Path("serve.yaml").write_text(text)
        with pytest.raises(SystemExit) as end:
            serve(["--config", "serve.yaml", "--print_config"])
        assert not end.value.code
        assert yaml.safe_load(capsys.readouterr().out)["port"] == 8000
        return
    Path("base.yaml").write_text(BASE)
    Path("snippet.yaml").write_text(yaml.safe_dump(placed(text), sort_keys=False))
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config=base.yaml", "--config=snippet.yaml", "--print_config"])
    assert not end.value.code, capsys.readouterr().err
    stated = capsys.readouterr().out
    for value in re.findall(r"class_path: (?:\w+\.)*(\w+)", text):
        assert re.search(rf"\b{value}$", stated, re.MULTILINE), value


def test_the_table_of_runs(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    (code,) = blocks("docs/runs.md", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "runs.md", "exec"), names)
    assert {row["name"] for row in names["table"]} >= {"mine", "first", "second"}
    assert names["best"] in names["table"]


def test_the_snippets_of_the_page_on_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stillness, files = blocks("docs/video.md", "python")
    frames = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    names: dict[str, Any] = {"frames": frames}
    exec(compile(stillness + files, "video.md", "exec"), names)
    reward = names["Stillness"]()
    assert (
        reward.forward(frames[None], ["a"]).item()
        < reward.forward(frames[None, :1].expand(1, 4, 3, 32, 32), ["a"]).item()
    )
    assert names["video"].frames.shape == (4, 3, 32, 32)
    assert names["video"].fps == 8
