"""Folders of runs, as a `fit` and a `test` leave them, made without a model."""

import csv
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from PIL import Image

PROMPTS = ["a red square", "a blue circle <b>&", 'a "green" star', "two circles"]
BASE = [[20.0], [21.0], [22.0], [23.0]]
"""The scores of the base model, one sample of each prompt."""


def run_folder(
    folder: Path,
    seed: int = 0,
    lr: float = 1e-3,
    gain: Sequence[float] = (1.0, 2.0, -1.0, 4.0),
    updates: int = 20,
    samples: bool = True,
    planned: int | None = None,
    settings: Mapping[str, object] | None = None,
) -> Path:
    """Writes a run whose reward rises from 20 by one in all, and whose evaluation finds the gains on four prompts."""
    folder.mkdir(parents=True)
    arguments = {"model": "Tiny", "optimization": {"lr": lr}, "seed": seed, **(settings or {})}
    trainer = {"max_steps": planned or updates, "default_root_dir": str(folder)}
    config = {
        "seed_everything": seed,
        "model": {"class_path": "rlr.ImageAlignment", "init_args": arguments},
        "trainer": trainer,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_rows(folder / "metrics.csv", metrics(updates, seed))
    facts = {
        "command": "fit",
        "line": "python train.py fit --config a.yaml",
        "summary": "HalfOrder on Tiny",
        "device": "a CPU",
    }
    (folder / "run.json").write_text(json.dumps({"commands": [facts]}))
    evaluation(folder, gain, updates)
    if samples:
        write_samples(folder / "samples" / "last", gain, updates)
    return folder


def metrics(updates: int, seed: int) -> list[dict[str, float]]:
    """Rows of ``metrics.csv``: one for each update, and one for a validation in the middle."""
    draw = random.Random(seed)
    rows: list[dict[str, float]] = []
    for k in range(updates):
        row = {"step": k, UPDATES: k + 1, "reward/mean": 20 + k / updates + draw.gauss(0, 0.1), "reward/std": 1.5}
        row |= {
            "reward/Toy": row["reward/mean"],
            "kl/path": 0.01 * k,
            "gradient/total": 2.0,
            "gradient/half_order": 0.001,
        }
        row |= {"cosine/first_order_half_order": 0.5, "seconds/rollout": 1.0, "seconds/optimizer": 0.5}
        row |= {
            "memory_mib/rollout": 100.0,
            "reward_calls": 8.0 * (k + 1),
            "samples": 4.0 * (k + 1),
            "group/spread": 0.1 * (k % 3),
        }
        rows.append(row)
    return rows


UPDATES = "updates"


def write_rows(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, names)
        writer.writeheader()
        writer.writerows(rows)


def evaluation(folder: Path, gain: Sequence[float], updates: int, stage: str = "fit", seed: int = 0) -> None:
    """Writes results and history of an evaluation."""
    scores = [[b + g for b in row] for row, g in zip(BASE, gain, strict=True)]
    base, after = (sum(sum(row) for row in table) / 4 for table in (BASE, scores))
    found = {
        "base": base,
        "aligned": after,
        "difference": after - base,
        "low": after - base - 1,
        "high": after - base + 1,
    }
    part = {
        "results": {
            "Toy": found,
            "diversity": {"base": 0.2, "aligned": 0.1, "difference": -0.1, "low": None, "high": None},
        },
        "scores": {"Toy": scores, "diversity": [[0.1]] * 4},
        "base_scores": {"Toy": BASE, "diversity": [[0.2]] * 4},
        "prompts": PROMPTS,
    }
    place = folder / "evaluation" / stage
    place.mkdir(parents=True)
    (place / "results.json").write_text(json.dumps({"seed": seed, "update": updates, "sets": {"Prompts": part}}))
    empty = {"prompts": "Prompts", "measurement": "Toy", "number": 4, "samples": 1}
    write_rows(
        place / "history.csv",
        [
            {"update": 0, **empty, "base": "", "aligned": base, "difference": "", "low": base - 1, "high": base + 1},
            {"update": updates, **empty, **found},
            {"update": updates, **empty, "measurement": "diversity", "base": 0.2, "aligned": 0.1, "difference": -0.1},
        ],
    )


def write_samples(place: Path, gain: Sequence[float], updates: int, suffix: str = ".png") -> None:
    """Writes a sample of the base model and one of the aligned model for each prompt."""
    place.mkdir(parents=True)
    cards = []
    for k, (prompt, change) in enumerate(zip(PROMPTS, gain, strict=True)):
        files = {model: f"{k:03d}-{model}" for model in ("base", "aligned")}
        for shade, name in zip((40, 200), files.values(), strict=True):
            if suffix == ".png":
                Image.new("RGB", (32, 32), (shade, 60 * k, 90)).save(place / f"{name}.png")
            else:
                (place / f"{name}.mp4").write_bytes(video(shade))
        scores = {"base": {"Toy": BASE[k][0]}, "aligned": {"Toy": None if math.isnan(change) else BASE[k][0] + change}}
        cards.append({"prompt": prompt, "seed": 100 + k, "files": files, "scores": scores})
    content = {"set": "Prompts", "suffix": suffix, "update": updates, "metrics": ["Toy"], "samples": cards}
    (place / "samples.json").write_text(json.dumps(content))


def video(shade: int) -> bytes:
    """Returns half a second of mp4, from dark to light."""
    import io

    import av
    import numpy as np

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for k in range(4):
            pixels = np.full((64, 64, 3), min(255, shade + 10 * k), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
