"""What a run is called, and which runs differ from it only in their seeds."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlr.cli.config_parts import arguments_of, class_of
from rlr.records.groups import settings


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what runs are filtered and grouped by, in short: classes, learning rate, batch, updates and seed.

    Args:
        config: A resolved config; what it does not have is left out.
    """
    arguments = arguments_of(config.get("model"))
    model = arguments.get("model")
    found = {
        "estimator": class_of(arguments.get("estimator")),
        "reward": class_of(arguments.get("reward")),
        # a guidance holds the model
        "base": class_of(arguments_of(model).get("model")) or class_of(model),
        "sampler": class_of(arguments.get("sampler")),
        "lr": (arguments.get("optimization") or {}).get("lr"),
        "batch": arguments_of(config.get("data")).get("batch_size"),
        "updates": (config.get("trainer") or {}).get("max_steps"),
        "seed": config.get("seed_everything"),
    }
    return {name: value for name, value in found.items() if value is not None}


def run_name(folder: Path, config: Mapping[str, Any]) -> str:
    """Returns the name of a run: that of its folder, and its seed where the folder does not state one."""
    seed = config.get("seed_everything")
    return folder.name if seed is None or "seed" in folder.name else f"{folder.name} seed {seed}"


def run_group(config: Mapping[str, Any]) -> str:
    """Returns the name of the group of a run, which runs share whose configs differ only in seeds and places.

    It is estimator, reward and base model, with the first digits of the SHA-256 of all settings.
    """
    own = json.dumps(settings(config), sort_keys=True, default=str)
    known = facts(config)
    words = [str(known[name]) for name in ("estimator", "reward", "base") if name in known]
    return " ".join([*words, hashlib.sha256(own.encode()).hexdigest()[:6]])
