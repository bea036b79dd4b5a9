r"""ViCLIP: how well a video shows its prompt.

.. math:: R(x, c) = \frac{1}{k} \sum_{j=0}^{k-1} \Bigl\langle \frac{f(x_{S_j})}{\|f(x_{S_j})\|}, \frac{g(c)}{\|g(c)\|} \Bigr\rangle,
    \qquad S_j = \{j, j + k, \dots, j + 7 k\}

with the video tower :math:`f`, which reads eight frames, the text tower :math:`g`, and :math:`k = \lfloor F / 8 \rfloor` for a
video of :math:`F` frames. An update sees one of the :math:`k` sets of frames, any with the same chance, as in the training of
T2V-Turbo; the demo of ViCLIP's authors scores the first.

References:
    | InternVid: A Large-scale Video-Text Dataset for Multimodal Understanding and Generation (Wang et al., 2023)
    | https://arxiv.org/abs/2307.06942
    | T2V-Turbo: Breaking the Quality Bottleneck of Video Consistency Model with Mixed Reward Feedback (Li et al., 2024)
    | get_vi_clip_score_fn in reward_fn/reward_fn.py of https://github.com/Ji4chenLi/t2v-turbo
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from rlr.io.hub import Published, find
from rlr.io.weights import build, read_state
from rlr.rewards.base import FrameSelection
from rlr.rewards.networks.network import NetworkReward
from rlr.rewards.networks.preprocessing import CropShortest, Fit, Preprocessing, Squash, check_range
from rlr.rewards.networks.viclip_network import ViCLIPNetwork, ViCLIPSizes

FILES = (Published("ViClip-InternVid-10M-FLT.pth"), Published("ViCLIP-L_InternVid-FLT-10M.pth"))
"""The published file, under its older and its newer name."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue in the training of the network."""


class ViCLIP(NetworkReward):
    r"""The cosine of video and prompt in ViCLIP, in [-1, 1].

    Args:
        path: The file of weights, a folder that holds it under a published name, or a hub id.
        sizes: The sizes of the network; by default those of ViCLIP-L/14.
        preprocessing: ``training`` resizes the shorter side (bicubic) and crops the center, where T2V-Turbo crops at random;
            ``official`` resizes both sides (bilinear, not antialiased) as the authors' demo. Both have a gradient.
        chunk: The number of videos to score at once.
        cache: The number of prompts whose features are cached.
    """

    supports_images = False
    supports_video = True
    fits: ClassVar[Mapping[Preprocessing, Fit]] = {
        Preprocessing.official: Squash("bilinear", antialias=False),
        Preprocessing.training: CropShortest(),
    }
    scales = MappingProxyType({"x100": 100.0})

    def __init__(
        self,
        path: str = "OpenGVLab/VBench_Used_Models",
        sizes: ViCLIPSizes | None = None,
        preprocessing: Preprocessing | Fit = Preprocessing.training,
        chunk: int = 4,
        cache: int = 4096,
    ) -> None:
        # imported here because the import takes seconds
        from open_clip import SimpleTokenizer

        super().__init__(preprocessing, chunk, cache)
        found = sizes or ViCLIPSizes()
        file = find(path, FILES)
        self.network = build(lambda: ViCLIPNetwork(found), read_state(file), file)
        self.size, self.length, self.frames = found.image, found.length, found.frames
        self.tokenizer = SimpleTokenizer(context_length=self.length)

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self._check(samples, prompts)
        texts = self._text_features(prompts)
        return torch.stack([self.rate(samples[:, chosen], texts) for chosen in self.sets(samples.shape[1])]).mean(0)

    def sets(self, frames: int) -> list[list[int]]:
        r"""Returns the sets :math:`S_j` of numbers of frames of a video of ``frames`` frames.

        Raises:
            ValueError: If there are fewer than the network reads.
        """
        k = frames // self.frames
        if not k:
            raise ValueError(
                f"{self.label} reads {self.frames} frames, and the video has {frames}; make videos of at least {self.frames}, best "
                "a multiple of it, since frames beyond one are not read"
            )
        return [list(range(j, frames, k))[: self.frames] for j in range(k)]

    def select_frames(self, frames: int, seed: int) -> FrameSelection:
        sets = self.sets(frames)
        j = int(torch.randint(len(sets), (), generator=torch.Generator().manual_seed(seed)))
        return FrameSelection(sets[j], self.score)

    def preprocess(self, samples: Tensor) -> Tensor:
        r"""Returns the network's input, with shape :math:`(B, 8, 3, s, s)`, from pixels in [0, 1]."""
        mean, std = (samples.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        pixels = (self.fit(samples.flatten(0, 1), self.size) - mean) / std
        return pixels.unflatten(0, samples.shape[:2]).to(self._weight.dtype)

    def _score(self, pixels: Tensor, texts: Tensor) -> Tensor:
        return (F.normalize(self.network.vision_encoder(pixels), dim=-1) * texts).sum(-1)

    def _encode(self, prompt: str) -> Tensor:
        tokens = self.tokenizer([prompt]).to(self._weight.device)
        return F.normalize(self.network.text_encoder(tokens), dim=-1)[0]

    def _is_cut(self, prompt: str) -> bool:
        return len(self.tokenizer.encode(prompt)) + 2 > self.length

    def _check(self, samples: Tensor, prompts: Sequence[str], slack: float = 1e-2) -> None:
        if samples.ndim != 5 or samples.shape[2] != 3 or len(samples) != len(prompts) or not len(prompts):
            raise ValueError(
                f"{self.label}: expected videos of shape (B, F, 3, H, W) and B prompts, got shape {tuple(samples.shape)} and "
                f"{len(prompts)} prompts; it scores no single images"
            )
        check_range(samples, self.label, slack)
