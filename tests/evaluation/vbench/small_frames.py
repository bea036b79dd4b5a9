"""Whether a network of VBench gives numbers for frames of a size: ``… small_frames WEIGHTS DIMENSION HEIGHT WIDTH``."""

import json
import os
import sys
from pathlib import Path

import torch

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"


def motion_smoothness(weights: Path, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    from vbench import motion_smoothness as module

    config = Path(module.__file__).parent / "third_party" / "amt" / "cfgs" / "AMT-S.yaml"
    motion = module.MotionSmoothness(str(config), str(weights / "amt_model" / "amt-s.pth"), "cpu")
    pair = module.InputPadder(one.shape, 16).pad(one, other)
    return motion.model(*pair, motion.embt, scale_factor=1, eval=True)["imgt_pred"]


def dynamic_degree(weights: Path, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    from easydict import EasyDict
    from vbench import dynamic_degree as module

    path = str(weights / "raft_model" / "models" / "raft-things.pth")
    settings = EasyDict(model=path, small=False, mixed_precision=False, alternate_corr=False)
    degree = module.DynamicDegree(settings, "cpu")
    return degree.model(*module.InputPadder(one.shape).pad(255 * one, 255 * other), iters=2, test_mode=True)[1]


FLOWS = {"motion_smoothness": motion_smoothness, "dynamic_degree": dynamic_degree}

if __name__ == "__main__":
    folder, name, height, width = sys.argv[1:]
    frames = torch.rand(2, 1, 3, int(height), int(width), generator=torch.Generator().manual_seed(0))
    keep = os.dup(1)
    os.dup2(2, 1)  # VBench prints
    with torch.no_grad():
        finite = FLOWS[name](Path(folder), *frames).isfinite().all().item()
    os.write(keep, json.dumps(finite).encode())
