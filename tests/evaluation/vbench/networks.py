"""Random networks in the files that VBench loads: ``python -m tests.evaluation.vbench.networks FOLDER {small,full}``.

Architectures and formats are those of the published files: CLIP is a TorchScript archive, RAFT's keys begin with
``module.``, AMT's state dict lies beside a NumPy number, which is why its loader needs pickles. ``small`` narrows the
transformers of CLIP and DINO, whose width their loaders read from the file; RAFT, AMT and MUSIQ have one size.

The repository of DINO is not to be had without a network. A file of the same entry point takes its place, which builds
the same vision transformer from timm, whose names of weights are DINO's, and loads the file as DINO's does: by its
address, through ``torch.hub``. What this cannot show is that DINO's own code runs.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

HUBCONF = """
import torch
from timm.models.vision_transformer import VisionTransformer

dependencies = ["torch", "timm"]


def dino_vitb16(pretrained=True, **kwargs):
    address = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
    weights = torch.hub.load_state_dict_from_url(address, map_location="cpu")
    width = weights["norm.weight"].numel()
    depth = sum(name.endswith(".attn.qkv.weight") for name in weights)
    model = VisionTransformer(patch_size=16, embed_dim=width, depth=depth, num_heads=width // 64, num_classes=0)
    model.load_state_dict(weights)
    return model
"""

SIZES = {
    "small": {"dino": (128, 2), "b32": (64, 32, 1), "l14": (64, 768, 1)},
    "full": {"dino": (768, 12), "b32": (768, 512, 12), "l14": (1024, 768, 24)},
}
"""DINO's width and depth; CLIP's width, its embedding (768 is what the aesthetic head takes) and its depth."""


def spread(net: nn.Module) -> nn.Module:
    """Makes a network's output depend on its input: many are built with zeros in the last layer."""
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1 and not weight.any():
                weight.normal_(std=0.02)
    return net.eval()


def dino(width: int, depth: int) -> dict[str, Any]:
    from timm.models.vision_transformer import VisionTransformer

    net = VisionTransformer(patch_size=16, embed_dim=width, depth=depth, num_heads=width // 64, num_classes=0)
    return spread(net).state_dict()


def clip(patch: int, width: int, embedding: int, depth: int) -> torch.jit.ScriptModule:
    from clip.model import CLIP

    net = CLIP(embedding, 224, depth, width, patch, 77, 49408, 64, 1, 1).float().eval()
    return torch.jit.trace(net, (torch.zeros(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.long)))


def amt() -> dict[str, Any]:
    import numpy as np
    import vbench
    from omegaconf import OmegaConf
    from vbench.third_party.amt.utils.build_utils import build_from_cfg

    config = OmegaConf.load(Path(vbench.__file__).parent / "third_party" / "amt" / "cfgs" / "AMT-S.yaml")
    return {"state_dict": spread(build_from_cfg(config.network)).state_dict(), "epoch": np.float64(299)}


def raft() -> dict[str, Any]:
    from easydict import EasyDict
    from vbench.third_party.RAFT.core.raft import RAFT

    net = RAFT(EasyDict(small=False, mixed_precision=False, alternate_corr=False))
    return {f"module.{name}": weight for name, weight in spread(net).state_dict().items()}


def musiq() -> dict[str, Any]:
    from pyiqa.archs.musiq_arch import MUSIQ

    return spread(MUSIQ(pretrained=False)).state_dict()


def main(folder: Path, size: str) -> None:
    """Writes all files."""
    torch.manual_seed(0)
    sizes = SIZES[size]
    contents = {
        "dino_model/dino_vitbase16_pretrain.pth": dino(*sizes["dino"]),
        "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth": nn.Linear(768, 1).state_dict(),
        "amt_model/amt-s.pth": amt(),
        "raft_model/models/raft-things.pth": raft(),
        "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth": musiq(),
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, folder / name)
    (folder / "clip_model").mkdir()
    clip(32, *sizes["b32"]).save(str(folder / "clip_model" / "ViT-B-32.pt"))
    clip(14, *sizes["l14"]).save(str(folder / "clip_model" / "ViT-L-14.pt"))
    (folder / "dino_model" / "facebookresearch_dino_main").mkdir()
    (folder / "dino_model" / "facebookresearch_dino_main" / "hubconf.py").write_text(HUBCONF)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
