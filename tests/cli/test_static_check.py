"""What is wrong with a command line is found in the source files, before a library is imported."""

import itertools
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import yaml

from rlr.cli import static_check
from rlr.cli.draft_config import draft, read_options, read_sources
from rlr.cli.settings import OTHER_PRECISIONS, PRECISIONS, check_settings
from rlr.cli.source_index import named_anywhere, names_below, open_class
from rlr.cli.static_check import check_command, check_config, known_options
from rlr.io.config_files import ConfigError
from tests.test_configs import CONFIGS, FRAGMENTS, ROOT, name

CONFIG = """
seed_everything: 7
model:
  class_path: ImageAlignment
  init_args:
    model: Tiny
    sampler: {class_path: DDIM, init_args: {steps: 4, eta: 1.0}}
    reward:
      class_path: Combine
      init_args: {rewards: {bright: Brightness, jpeg: JPEGCompressibility}, weights: {bright: 1.0, jpeg: 0.5}}
    estimator: {class_path: HalfOrderRLR, init_args: {length: 2, control: LookAhead}}
    seed: 3
data: {class_path: Prompts, init_args: {train: [one, two], batch_size: 2}}
trainer: {max_steps: 3, callbacks: [{class_path: Checkpointing, init_args: {every: 2}}]}
"""


def refusal(*options: str, config: str = CONFIG, tmp_path: Path, command: str = "fit") -> str:
    """The sentence with which a command line is refused."""
    path = tmp_path / "config.yaml"
    path.write_text(config)
    with pytest.raises(ConfigError) as caught:
        check_command([command, f"--config={path}", *options])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", [*CONFIGS, *FRAGMENTS], ids=name)
def test_shipped_configs_pass(path):
    config = draft(read_sources(read_options([f"--config={path}"])))
    check_config(config, known_options("fit"), complete=path in CONFIGS)


OPTIONS = {
    "--modle=3": "there is no option 'modle'; did you mean 'model'?",
    "--trainer.max_stps=3": "there is no option 'trainer.max_stps'; did you mean 'trainer.max_steps'?",
    "--model.sampler.etta=1": "model.sampler: DDIM has no argument 'etta'; did you mean 'eta'?",
    "--model.init_args.sampler.init_args.etta=1": "model.sampler: DDIM has no argument 'etta'",
    "--model.sampler=DDMI": "model.sampler: there is no Sampler 'DDMI'; did you mean 'DDIM'?",
    "--model.sampler=Brightness": "Sampler 'Brightness'; there are Ancestral, CPS, Consistency, DDIM, DanceSDE, FlowSDE, Windowed",
    "--model.reward=mine.Warmth": "model.reward: expected a module that Python can import, found none named 'mine'; put its file",
    "--model.reward=mine.rewards.Warmth": "found none named 'mine'; put its file beside train.py",
    "--model.reward=rlr.rewards.mine.Warmth": "found none named 'rlr.rewards.mine'",
    "--model.reward=omegaconf.nowhere.Warmth": "found none named 'omegaconf.nowhere'",
    "--model.reward.rewards.bright=mine.Warmth": "model.reward.rewards.bright: expected a module",
    "--trainer.callbacks=[mine.Warmth]": "trainer.callbacks[0]: expected a module that Python can import",
    "--trainer.callbacks=[{class_path: Evaluation, init_args: {metrics: 'ExactCheck,ExactCheck'}}]": (
        "trainer.callbacks[0].metrics: expected list[Metric | Reward] or null, got 'ExactCheck,ExactCheck'"
    ),
    "--trainer.callbacks=[{class_path: Evaluation, init_args: {displays: SampleGrid}}]": "displays: expected list[Display] or null",
    "--model.sampler=rlr.samplers.DDMI": "there is no Sampler 'rlr.samplers.DDMI'",
    "--trainer.logger=TensorBordLogger": "there is no Logger 'TensorBordLogger'; did you mean 'TensorBoardLogger'?",
    "--trainer.callbacks+=EMAA": "trainer.callbacks[1]: there is no Callback 'EMAA'; did you mean 'EMA'?",
    "--trainer.callbacks.evry=3": "trainer.callbacks[0]: Checkpointing has no argument 'evry'; did you mean 'every'?",
    "--model.reward.rewards.bright=Brihgtness": "model.reward.rewards.bright: there is no Reward 'Brihgtness'",
    "--model.optimization.lrr=1": "model.optimization: Optimization has no argument 'lrr'; did you mean 'lr'?",
    "--model.optimization.lr=fast": "model.optimization.lr: expected float, got 'fast'",
    "--model.estimator=none.yaml": (
        "model.estimator: there is no file none.yaml; check the path (in a config it is relative to that config, "
        "on the command line to "
    ),
    "--model.seed=-1": "model.seed: expected a seed from 0 to 4294967295, got -1",
    "--seed_everything=-1": "seed_everything: expected a seed from 0 to 4294967295, got -1",
    "--trainer.accumulate_grad_batches=4": "set model.init_args.optimization.accumulate to 4",
    "--trainer.gradient_clip_val=0.5": "set model.init_args.optimization.clip_norm to 0.5",
    "--trainer.precision=fp16": "trainer.precision: expected a precision of Lightning, got 'fp16'; set 16-mixed",
    "--trainer.precision=half": "set 16-mixed",
    "--trainer.precision=float8": "set one of 64-true, 32-true",
    "--model.optimization.optimizer=torch.optim.LBFGS": "that needs one dense gradient a step, got LBFGS",
    "--model.optimization.optimizer=SparseAdam": "got SparseAdam, which needs a sparse one; set torch.optim.AdamW",
    "--model.model.dtype=null": "model.model.dtype: expected one of",
    "--model.seed=${": "model.seed: expected an interpolation such as ${model.init_args.seed}, got '${'",
    "--model.seed=${oc.env:NO_SUCH_NAME}": "model.seed: the environment variable NO_SUCH_NAME is not set",
    "--model.estimator.length=2.5": "model.estimator.length: expected int, got 2.5",
    "--model.estimator.length=true": "model.estimator.length: expected int, got true",
    "--data.train=[[one]]": "data.train[0]: expected str, got ['one']",
    "--model.sampler.eta=[1]": "model.sampler.eta: expected float, got [1]",
    "--trainer.enable_checkpointing=3": "trainer.enable_checkpointing: expected bool or null, got 3",
    "--model.reward.weights.bright=x": "model.reward.weights.bright: expected float, got 'x'",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_wrong_option_is_one_sentence(option, tmp_path):
    assert OPTIONS[option] in refusal(option, tmp_path=tmp_path)


def test_a_function_where_a_class_is_expected(tmp_path, monkeypatch):
    (tmp_path / "scores_of_mine.py").write_text("def warmth(images, prompts):\n    return images\n")
    monkeypatch.syspath_prepend(tmp_path)
    name = "scores_of_mine.warmth"
    stated = (
        f"model.reward: expected a class of Reward, got the function {name}; "
        f"set {{class_path: FunctionReward, init_args: {{function: {name}}}}}"
    )
    with pytest.raises(ConfigError) as error:
        check_command(["fit", f"--config={ROOT / 'configs/image/tiny_rlr.yaml'}", f"--model.reward={name}"])
    assert str(error.value) == stated
    with pytest.raises(ConfigError, match=r"expected a class of Sampler, got the function .*; name a class"):
        check_command(["fit", f"--config={ROOT / 'configs/image/tiny_rlr.yaml'}", f"--model.sampler={name}"])


def test_commands_and_files(tmp_path):
    for arguments, expected in {
        ("fitt",): "there is no command 'fitt'; did you mean 'fit'?",
        ("fit", "--seed_everything=1", "x"): "expected an option such as --config FILE, found 'x'",
        ("fit", "--config"): "--config: expected the name of a config file, found nothing",
        ("fit", "--config=none.yaml"): "there is no config none.yaml",
        ("test", "--config", str(tmp_path)): "expected a config file, found a folder",
    }.items():
        with pytest.raises(ConfigError, match=expected.replace("?", r"\?")):
            check_command(arguments)


def leaves(value: object, way: tuple = ()) -> list[tuple]:
    """The way to each value in a config that is no mapping."""
    if isinstance(value, dict):
        return [inner for key, item in value.items() for inner in leaves(item, (*way, key))]
    return [way]


def changed(way: tuple, value: object) -> dict:
    """The config with one value replaced."""
    whole = inner = yaml.safe_load(CONFIG)
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = value
    return whole


WAYS = leaves(yaml.safe_load(CONFIG))
MAY_BE_NULL = ("control", "callbacks", "train")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: ".".join(map(str, way)))
def test_null_is_refused_wherever_the_type_does_not_allow_it(way, tmp_path):
    config = yaml.safe_dump(changed(way, None))
    if way[-1] in MAY_BE_NULL:
        check_config(yaml.safe_load(config), known_options("fit"), complete=True)
        return
    place = ".".join(key for key in way if key != "init_args")
    stated = refusal(config=config, tmp_path=tmp_path)
    assert stated.startswith(place)
    assert "expected" in stated
    assert "got null" in stated


WRONG_VALUES = (
    ["four", ["five"]],
    {"a": {"b": 1}},
    {2.5: 1},
    [],
    -7.5,
    "${",
    "\ud7ff",
    "x" * 5000,
    True,
    {"init_args": 3},
    {"class_path": [1]},
)


@pytest.mark.parametrize(("way", "value"), itertools.product(WAYS, WRONG_VALUES), ids=lambda item: str(item)[:40])
def test_any_value_anywhere_passes_or_is_one_short_sentence(way, value, tmp_path):
    try:
        check_config(changed(way, value), known_options("fit"), complete=True)
    except ConfigError as error:
        stated = str(error)
        assert "\n" not in stated
        assert len(stated) < 1000
        assert ":" in stated


@pytest.mark.parametrize(
    ("way", "value", "expected"),
    [
        (("model", "init_args"), 3, "model.init_args: expected arguments by name, got 3"),
        (("model", "class_path"), ["A"], "model.class_path: expected the name of a class, got ['A']"),
        (("model", "class_path"), 3, "model.class_path: expected the name of a class, got 3"),
        (("model",), {"init_args": {"seed": 1}}, "model: expected class_path, got ['init_args']"),
        (
            ("data",),
            {"init_args": {"train": ["a"]}},
            "data: expected class_path, got ['init_args']; set class_path to a class of",
        ),
        (
            ("data",),
            {"class_path": "Prompts", "train": ["a"]},
            "data: expected class_path and init_args, got 'train'; set arg",
        ),
        (("model", "init_args", "reward", "init_args", "weights"), {2.5: 1.0}, "expected keys that are text, got 2.5"),
        (("model", "init_args", 3), 1, "model: expected the name of an argument of ImageAlignment, got 3"),
        (("seed_everything",), "x", "seed_everything: expected bool or int, got 'x'"),
        (("data", "init_args", "train"), ["four", ["five"]], "data.train[1]: expected str, got ['five']"),
        (("trainer",), 3, "trainer: expected arguments of Lightning's Trainer by name, got 3"),
        ((4,), 3, "there is no option '4'"),
        (("model", "init_args", "sampler", "dict_kwargs"), {"a": 1}, "model.sampler: DDIM has no argument 'a'"),
        (
            ("model", "init_args", "sampler", "dict_kwargs"),
            [1],
            "model.sampler.dict_kwargs: expected arguments by name",
        ),
        (
            ("model", "init_args", "sampler", "init_args", "steps"),
            "${model.init_args.sampler.init_args.steps}",
            "model.sampler.steps: expected an interpolation of another key",
        ),
        (("model", "init_args", "sampler"), "${model}", "model.sampler: expected an interpolation of another key"),
    ],
)
def test_wrong_kinds_of_values(way, value, expected, tmp_path):
    with pytest.raises(ConfigError) as caught:
        check_config(changed(way, value), known_options("fit"), complete=True)
    assert expected in str(caught.value)


def test_required_arguments(tmp_path):
    without = CONFIG.replace("    model: Tiny\n", "")
    assert (
        refusal(config=without, tmp_path=tmp_path)
        == "ImageAlignment needs model, which has no default; set it under model"
    )
    path = tmp_path / "config.yaml"
    check_command(["fit", f"--config={path}", "--print_config"])
    assert "VideoAlignment needs model, sampler, reward and estimator, which have no default; set them" in refusal(
        "--model=VideoAlignment", tmp_path=tmp_path
    )


def test_what_the_source_files_do_not_tell_passes():
    own = {"class_path": "tests.modules.toy.AffineModel", "init_args": {}}
    for way, value in {
        ("model", "init_args", "model"): own,
        ("model", "init_args", "optimization"): {
            "lr": "1e-4",
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        },
        ("trainer", "logger"): {"class_path": "WandbLogger", "init_args": {"project": "x", "tags": ["a"]}},
        ("trainer", "strategy"): "ddp",
        ("trainer", "precision"): 16,
        ("trainer", "profiler"): "simple",
        ("trainer", "max_time"): "00:01:00:00",
        ("model", "init_args", "estimator"): {"class_path": "scipy.no.such.Mine", "init_args": {"x": 1}},
        ("model", "init_args", "seed"): "${seed_everything}",
    }.items():
        check_config(changed(way, value), known_options("fit"), complete=True)


def test_the_index_knows_the_classes_that_importing_finds():
    from rlr import rewards, samplers

    for base in (rewards.Reward, samplers.Sampler):
        source = open_class(f"{base.__module__}.{base.__name__}")
        public = {item.name for item in named_anywhere([]) if item.below(source) and not item.abstract}
        assert set(names_below(source)) == public
    for item in named_anywhere(["DDIM", "PickScore"]):
        assert item.parameters.keys() == typing.get_type_hints(open_imported(item.path).__init__).keys() - {"return"}


def open_imported(path: str) -> type:
    module, _, class_name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[class_name]), class_name)


def test_precisions_are_those_of_lightning():
    from lightning.fabric.connector import _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS

    assert set(PRECISIONS) == set(typing.get_args(_PRECISION_INPUT_STR))
    assert set(OTHER_PRECISIONS) == set(typing.get_args(_PRECISION_INPUT_STR_ALIAS))


def test_settings_of_modules_that_lightning_optimizes_are_left_alone():
    trainer = {"gradient_clip_val": 1.0, "accumulate_grad_batches": 2}
    check_settings({"model": "rlr.toy.pretraining.autoencoder.Autoencoder", "trainer": trainer})
    with pytest.raises(ConfigError, match="optimization"):
        check_settings({"model": "ImageAlignment", "trainer": trainer})


@pytest.mark.parametrize(
    "arguments", [["--help"], ["fit", "--config=none.yaml"], ["fit", "--model.sampler=DDMI"], ["fitt"]]
)
def test_help_and_mistakes_import_neither_torch_nor_lightning(arguments):
    code = (
        "import sys\nfrom rlr.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'lightning', 'diffusers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_class_that_a_later_source_replaces_is_imported_too(config, monkeypatch):
    """jsonargparse reads each source with its own classes before it merges them."""
    imported = []
    monkeypatch.setattr(static_check, "import_classes", lambda classes: imported.extend(c.name for c in classes))
    path = config(("reward: tests.modules.toy.Level", "reward: TinyPickScore"))
    static_check.check_command(["fit", f"--config={path}", "--model.reward=Brightness", "--model.estimator=FirstOrder"])
    assert {"TinyPickScore", "Brightness", "RLR", "FirstOrder"} <= set(imported)
