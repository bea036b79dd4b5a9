"""Settings of Lightning that do not do here what they do elsewhere, each with what to set instead."""

from collections.abc import Iterator, Mapping
from typing import Any

from rlr.cli.source_index import named, open_class
from rlr.io.config_files import ConfigError

PRECISIONS = (
    "64-true",
    "32-true",
    "bf16-true",
    "16-true",
    "bf16-mixed",
    "16-mixed",
    "transformer-engine",
    "transformer-engine-float16",
)
"""Lightning's precisions."""

OTHER_PRECISIONS = ("64", "32", "16", "bf16")
"""Lightning's short names of them."""

HALF = {
    "fp16": "16-mixed",
    "float16": "16-mixed",
    "half": "16-mixed",
    "bfloat16": "bf16-mixed",
    "fp32": "32-true",
    "float32": "32-true",
}
"""What other programs call them."""

OTHER_OPTIMIZERS = {"LBFGS": "several", "SparseAdam": "a sparse one"}
"""The optimizers of torch that cannot train here, and what they need."""

ALIGNMENT = "rlr.modules.alignment.Alignment"
"""The class of the modules that optimize themselves."""

TRAINING = ("estimator", "optimization", "penalty", "memory")
"""The arguments of a module that no sample depends on."""

MAX_SEED = 2**32 - 1
"""NumPy's largest seed."""


def check_settings(config: Mapping[str, Any]) -> None:
    """Checks a config for settings that this command line replaces by its own.

    Raises:
        ConfigError: If there is one.
    """
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping):
        _check_precision(trainer.get("precision"))
        if _optimizes_itself(config.get("model")):
            _check_optimization(trainer)
    for place, name, value in _leaves(config):
        if name in ("seed", "seed_everything") and type(value) is int and not 0 <= value <= MAX_SEED:
            raise ConfigError(f"{place}: expected a seed from 0 to {MAX_SEED}, got {value}; set it to 0, say")
        optimizer = str(value).rpartition(".")[2]
        if name in ("class_path", "optimizer") and optimizer in OTHER_OPTIMIZERS:
            raise ConfigError(
                f"{place.removesuffix('.class_path')}: expected an optimizer that needs one dense gradient a step, got "
                f"{optimizer}, which needs {OTHER_OPTIMIZERS[optimizer]}; set torch.optim.AdamW or torch.optim.SGD"
            )


def sampling_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a config that samples follow from: those of the module but for its training, and the precision."""
    module = config["model"]
    used = {name: value for name, value in (module.get("init_args") or {}).items() if name not in TRAINING}
    return {"module": module["class_path"], **used, "precision": config["trainer"].get("precision")}


def _optimizes_itself(model: Any) -> bool:
    """Whether the module of a config steps its optimizer itself, which leaves some arguments of the trainer without effect."""
    name = model.get("class_path") if isinstance(model, Mapping) else model
    base, module = open_class(ALIGNMENT), open_class("lightning.pytorch.LightningModule")
    if not isinstance(name, str) or base is None or module is None:
        return False
    found = [open_class(name)] if "." in name else named(name, module)
    return any(kind is not None and kind.below(base) for kind in found)


def _check_optimization(trainer: Mapping[str, Any]) -> None:
    accumulate, clip = trainer.get("accumulate_grad_batches"), trainer.get("gradient_clip_val")
    if accumulate not in (None, 1):
        raise ConfigError(
            f"trainer.accumulate_grad_batches: expected 1, got {accumulate!r}; the module accumulates gradients itself: set "
            f"model.init_args.optimization.accumulate to {accumulate}"
        )
    if clip is not None:
        raise ConfigError(
            f"trainer.gradient_clip_val: expected null, got {clip!r}; the module clips gradients itself: set "
            f"model.init_args.optimization.clip_norm to {clip}"
        )


def _check_precision(precision: Any) -> None:
    if precision is not None and "${" not in str(precision) and str(precision) not in (*PRECISIONS, *OTHER_PRECISIONS):
        instead = HALF.get(str(precision).lower())
        remedy = f"set {instead}" if instead else f"set one of {', '.join(PRECISIONS)}"
        raise ConfigError(f"trainer.precision: expected a precision of Lightning, got {precision!r}; {remedy}")


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yields place, last key and value of everything in a config that is no mapping and no list."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            at = place if key == "init_args" else f"{place}.{key}" if place else str(key)
            yield from _leaves(item, at) if isinstance(item, Mapping | list) else [(at, str(key), item)]
    elif isinstance(value, list):
        for k, item in enumerate(value):
            yield from _leaves(item, f"{place}[{k}]")
