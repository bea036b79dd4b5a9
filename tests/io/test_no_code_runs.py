"""No file that is read can run code: a law over the source of the whole repository."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from jsonargparse._loaders_dumpers import get_yaml_default_loader

ROOT = Path(__file__).parents[2]

FOLDERS = ("rlr", "experiments", "tests", "train.py")
"""Where Python files are; a folder that is gone is passed over."""

UNSAFE_MODULES = {"dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
UNSAFE_CALLS = {
    "pickle.load",
    "pickle.Unpickler",
    "pd.read_pickle",
    "pandas.read_pickle",
    "torch.jit.load",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "os.system",
    "os.popen",
    "runpy.run_path",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.unsafe_load_all",
    "yaml.full_load_all",
}
UNSAFE_ARGUMENTS = {"weights_only": False, "allow_pickle": True, "shell": True, "trust_remote_code": True}
SAFE_LOADERS = {"SafeLoader", "yaml.SafeLoader", "CSafeLoader", "yaml.CSafeLoader", "get_yaml_default_loader()"}
"""Loaders that build no objects; a test below shows it for the last one, jsonargparse's."""


def arguments(call):
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def fault(call, is_test):
    """Returns what is unsafe in a call, or None."""
    name, given = ast.unparse(call.func), arguments(call)
    for argument, value in UNSAFE_ARGUMENTS.items():
        found = given.get(argument)
        if isinstance(found, ast.Constant) and found.value is value:
            return f"{name}({argument}={value})"
    # only an explicit argument holds for every version of torch and Lightning
    if name == "torch.load" or name.endswith(".load_from_checkpoint"):
        found = given.get("weights_only")
        return None if isinstance(found, ast.Constant) and found.value is True else f"{name} without weights_only=True"
    if name in ("yaml.load", "yaml.load_all"):
        loader = given.get("Loader", call.args[1] if len(call.args) > 1 else None)
        return None if loader is not None and ast.unparse(loader) in SAFE_LOADERS else f"{name} without SafeLoader"
    # tests copy objects by pickle and run the snippets of documents
    unsafe = UNSAFE_CALLS if is_test else UNSAFE_CALLS | {"eval", "exec", "compile", "__import__", "pickle.loads"}
    return name if name in unsafe else None


def faults(tree, is_test):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (what := fault(node, is_test)):
            yield f"line {node.lineno}: {what}"
        if isinstance(node, ast.Import):
            modules = {alias.name.split(".")[0] for alias in node.names}
            yield from (f"line {node.lineno}: import {name}" for name in modules & UNSAFE_MODULES)
        if isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names} | {f"{node.module.split('.')[0]}.*"}
            bad = {"pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "yaml.load", "os.system"}
            bad |= {f"{module}.*" for module in UNSAFE_MODULES}
            yield from (f"line {node.lineno}: from {name}" for name in named & bad)


SAFE_BY_TEST = {"rlr/io/config_files.py: yaml.load without SafeLoader"}
"""Faults of the source whose loader is not named there; that it is safe is a test of its own."""


def sources():
    for folder in FOLDERS:
        path = ROOT / folder
        yield from [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def test_no_source_reads_a_file_that_could_run_code():
    files = list(sources())
    assert len(files) > 300
    found = [
        f"{path.relative_to(ROOT)}: {what}"
        for path in files
        for what in faults(ast.parse(path.read_text(encoding="utf-8")), "tests" in path.parts)
    ]
    assert {re.sub(r"line \d+: ", "", what) for what in found} == SAFE_BY_TEST


def test_the_loader_of_configs_builds_no_objects(tmp_path):
    assert issubclass(get_yaml_default_loader(), (yaml.SafeLoader, yaml.CSafeLoader))
    mark = tmp_path / "ran"
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        yaml.load(f"!!python/object/apply:os.mkdir [{mark}]", Loader=get_yaml_default_loader())
    assert not mark.exists()


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "trainer.fit(module, weights_only=False)",
        "Module.load_from_checkpoint(path)",
        "pickle.load(file)",
        "pickle.loads(data)",
        "pickle.Unpickler(file)",
        "import dill",
        "from joblib import load",
        "from pickle import load",
        "from torch import load",
        "yaml.load(text)",
        "yaml.load(text, yaml.FullLoader)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "torch.jit.load(path)",
        "os.system(text)",
    ],
)
def test_the_law_can_fail(code):
    assert list(faults(ast.parse(code), is_test=False))


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path, map_location='cpu', weights_only=True)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "model.eval()",
        "re.compile(pattern)",
        "np.load(path)",
        "subprocess.run([command])",
    ],
)
def test_what_runs_no_code_passes(code):
    assert not list(faults(ast.parse(code), is_test=False))
