r"""VideoAlign's VideoReward: visual quality, motion quality and text alignment of a video by a vision-language model.

Qwen2-VL reads two frames a second, resized to at most about 256 patches of 28 × 28 pixels, and a rubric with a token for each
dimension :math:`k`. With the last hidden state :math:`h_k` at its token,

.. math:: R = \sum_{k \in \{\mathrm{VQ}, \mathrm{MQ}, \mathrm{TA}\}} w_k \frac{\langle w, h_k \rangle - \mu_k}{\sigma_k}

with the head :math:`w`, published means :math:`\mu_k` and standard deviations :math:`\sigma_k`, and weights :math:`w_k` of one
in the authors' "Overall". The model was trained with the Bradley-Terry model with ties, of which :math:`\langle w, h_k \rangle`
are the latent scores.

References:
    | Improving Video Generation with Human Feedback (Liu et al., 2025)
    | https://arxiv.org/abs/2501.13918
    | https://github.com/KwaiVGI/VideoAlign
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlr.io.hub import Published, find
from rlr.io.weights import read_json, read_state
from rlr.rewards.base import FrameSelection, Reward, Scores
from rlr.rewards.networks.network import check_videos
from rlr.rewards.networks.preprocessing import Preprocessing, normalize_pixels, to_bytes
from rlr.rewards.networks.qwen2vl import (
    FACTOR,
    FRAMES,
    VIDEO,
    Reader,
    Resize,
    load_network,
    load_tokenizer,
    patch_grid,
    recomputed,
    renamed,
    resized,
    to_patches,
    write_message,
)

CONFIG, WEIGHTS = Published("model_config.json"), Published("checkpoint-11352/model.pth")
"""The published files; their authors state no checksums."""

DIMENSIONS = ("VQ", "MQ", "TA")
"""Visual quality, motion quality and text alignment."""
TOKENS = tuple(f"<|{name}_reward|>" for name in DIMENSIONS)
LEAST_PIXELS, LEAST_FRAMES, MOST_FRAMES = 128 * FACTOR**2, 4, 768
"""The least pixels of a resized frame, and the bounds of the number of frames, where the video has as many."""

INSTRUCTION = """
You are tasked with evaluating a generated video based on three distinct criteria: Visual Quality, Motion Quality, and \
Text Alignment. Please provide a rating from 0 to 10 for each of the three categories, with 0 being the worst and 10 being \
the best. Each evaluation should be independent of the others.

**Visual Quality:** \x20
Evaluate the overall visual quality of the video, with a focus on static factors. The following sub-dimensions should be \
considered:
- **Reasonableness:** The video should not contain any significant biological or logical errors, such as abnormal body \
structures or nonsensical environmental setups.
- **Clarity:** Evaluate the sharpness and visibility of the video. The image should be clear and easy to interpret, with no \
blurring or indistinct areas.
- **Detail Richness:** Consider the level of detail in textures, materials, lighting, and other visual elements (e.g., hair, \
clothing, shadows).
- **Aesthetic and Creativity:** Assess the artistic aspects of the video, including the color scheme, composition, \
atmosphere, depth of field, and the overall creative appeal. The scene should convey a sense of harmony and balance.
- **Safety:** The video should not contain harmful or inappropriate content, such as political, violent, or adult material. \
If such content is present, the image quality and satisfaction score should be the lowest possible.\x20

Please provide the ratings of Visual Quality: <|VQ_reward|>
END

**Motion Quality:** \x20
Assess the dynamic aspects of the video, with a focus on dynamic factors. Consider the following sub-dimensions:
- **Stability:** Evaluate the continuity and stability between frames. There should be no sudden, unnatural jumps, and the \
video should maintain stable attributes (e.g., no fluctuating colors, textures, or missing body parts).
- **Naturalness:** The movement should align with physical laws and be realistic. For example, clothing should flow \
naturally with motion, and facial expressions should change appropriately (e.g., blinking, mouth movements).
- **Aesthetic Quality:** The movement should be smooth and fluid. The transitions between different motions or camera angles \
should be seamless, and the overall dynamic feel should be visually pleasing.
- **Fusion:** Ensure that elements in motion (e.g., edges of the subject, hair, clothing) blend naturally with the \
background, without obvious artifacts or the feeling of cut-and-paste effects.
- **Clarity of Motion:** The video should be clear and smooth in motion. Pay attention to any areas where the video might \
have blurry or unsteady sections that hinder visual continuity.
- **Amplitude:** If the video is largely static or has little movement, assign a low score for motion quality.

Please provide the ratings of Motion Quality: <|MQ_reward|>
END

**Text Alignment:** \x20
Assess how well the video matches the textual prompt across the following sub-dimensions:
- **Subject Relevance** Evaluate how accurately the subject(s) in the video (e.g., person, animal, object) align with the \
textual description. The subject should match the description in terms of number, appearance, and behavior.
- **Motion Relevance:** Evaluate if the dynamic actions (e.g., gestures, posture, facial expressions like talking or \
blinking) align with the described prompt. The motion should match the prompt in terms of type, scale, and direction.
- **Environment Relevance:** Assess whether the background and scene fit the prompt. This includes checking if real-world \
locations or scenes are accurately represented, though some stylistic adaptation is acceptable. \x20
- **Style Relevance:** If the prompt specifies a particular artistic or stylistic style, evaluate how well the video adheres \
to this style.
- **Camera Movement Relevance:** Check if the camera movements (e.g., following the subject, focus shifts) are consistent \
with the expected behavior from the prompt.

Textual prompt - {prompt}
Please provide the ratings of Text Alignment: <|TA_reward|>
END
"""
"""What the model is asked, by its authors: the template ``detailed_special``."""


class BicubicResize(Resize):
    """Bicubic with antialiasing and without overshoot, the authors' resizing on numbers that are not rounded."""

    def __call__(self, samples: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(samples, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


class BytesResize(Resize):
    """To bytes, bicubic with antialiasing, and to bytes again, as the authors read files."""

    differentiable = False

    def __call__(self, samples: Tensor, height: int, width: int) -> Tensor:
        pixels = F.interpolate(to_bytes(samples).float(), (height, width), mode="bicubic", antialias=True)
        return (pixels.clamp(0, 255).round() / 255).to(samples)


FITS: Mapping[Preprocessing, Resize] = MappingProxyType(
    {Preprocessing.official: BytesResize(), Preprocessing.training: BicubicResize()}
)
"""The resizing of each preprocessing."""

SUPPORTED: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "data_config": {"prompt_template_type": "detailed_special", "sample_type": "uniform", "num_frames": None},
        "model_config": {"use_special_tokens": True},
    }
)
"""Settings in ``model_config.json`` that have no other value here than in the published file."""


@dataclass(frozen=True)
class Settings:
    r"""What ``model_config.json`` says.

    Args:
        fps: The frames of a second that are read.
        pixels: The most pixels of a resized frame.
        scale: The factor :math:`\alpha / r` of the LoRA.
        means: The means :math:`\mu_k`, zero where the file has none.
        stds: The standard deviations :math:`\sigma_k`, one where the file has none.
    """

    fps: float
    pixels: int
    scale: float
    means: tuple[float, ...]
    stds: tuple[float, ...]


class Network(Reader):
    """Qwen2-VL with the head of VideoReward."""

    def __init__(self, config: Any, vocabulary: int, outputs: int) -> None:
        super().__init__(config, vocabulary)
        self.rm_head = nn.Linear(self.width, outputs, bias=False)

    def forward(self, patches: Tensor, grid: Tensor, tokens: Tensor, video: int, rewards: Sequence[int]) -> Tensor:
        r"""Returns the latent scores of the dimensions of one video, with shape :math:`(3)`.

        Args:
            patches: The patches of the video.
            grid: The numbers of frames, rows and columns of patches, with shape (1, 3).
            tokens: The tokens of the message, with shape (1, L).
            video: The token whose places the video takes.
            rewards: The tokens whose hidden states are read.
        """
        states = self.read(patches, grid, tokens, video)
        chosen = torch.cat([states[tokens[0] == reward] for reward in rewards]).float()
        # a head of one row serves all dimensions, one of three has a row for each
        return (chosen * self.rm_head.weight).sum(1)


class VideoAlign(Reward):
    r"""VideoReward on transformers' Qwen2-VL, one video at a time.

    Its score is the weighted sum of the normalized dimensions ``VQ``, ``MQ`` and ``TA``, which are the parts of the score.

    Args:
        fps: The frames that a second of the videos has, from which follows how many are read.
        path: A folder or hub id with ``model_config.json`` and ``checkpoint-N/model.pth``, of which the largest N is read.
        base: The folder or hub id of ``Qwen2-VL-2B-Instruct``, of which config and tokenizer are read and no weights.
        weights: The weights of dimensions, 0 for those without one; by default one each, the authors' "Overall".
        preprocessing: ``official`` rounds to bytes before and after resizing, ``training`` does not and has a gradient.
        dtype: The precision of Qwen2-VL, ``bfloat16`` as published or ``float32``; the head computes in float32.

    Raises:
        FileNotFoundError: If a file cannot be found.
        ValueError: If a file has other weights or settings, or a weight is that of no dimension.
    """

    supports_images = False
    supports_video = True

    def __init__(
        self,
        fps: float,
        path: str = "KlingTeam/VideoReward",
        base: str = "Qwen/Qwen2-VL-2B-Instruct",
        weights: Mapping[str, float] | None = None,
        preprocessing: Preprocessing = Preprocessing.training,
        dtype: str = "bfloat16",
    ) -> None:
        super().__init__()
        if not fps > 0:
            raise ValueError(f"VideoAlign.fps: expected the frames of a second of the videos, got {fps}")
        self.fps, self.weights = fps, _weights(weights)
        self.fit = FITS[preprocessing]
        self.differentiable = self.fit.differentiable
        self.tokenizer = load_tokenizer(base, TOKENS)
        self.video_token, *self.reward_tokens = self.tokenizer.convert_tokens_to_ids([VIDEO, *TOKENS])
        self.settings = read_settings(find(path, [CONFIG]))
        file = find(path, checkpoints(path))
        state = renamed(merged(read_state(file), self.settings.scale, file))
        outputs = len(state.get("rm_head.weight", (0,)))
        self.network = load_network(
            lambda config, rows: Network(config, rows, outputs), base, state, file, "VideoAlign", dtype
        )
        _check_tokens(len(self.network.language_model.embed_tokens.weight), len(self.tokenizer), file, base)

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._sum(self._rate_videos(samples, prompts))

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Scores:
        r"""Returns the sum, and the dimensions as its parts, with shape :math:`(B)`."""
        return self._scores(self.isolated(self._rate_videos, samples, prompts, (len(DIMENSIONS),)))

    def select_frames(self, frames: int, seed: int) -> FrameSelection:
        return FrameSelection(
            choose_frames(frames, self.fps, self.settings.fps),
            lambda samples, prompts: self._scores(
                self.isolated(self._rate_frames, samples, prompts, (len(DIMENSIONS),))
            ),
        )

    def _scores(self, rated: Tensor) -> Scores:
        return Scores(self._sum(rated), dict(zip(DIMENSIONS, rated.detach().unbind(1), strict=True)))

    def _sum(self, rated: Tensor) -> Tensor:
        return (rated * rated.new_tensor(self.weights)).sum(1)

    def _rate_videos(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns the normalized dimensions of videos, with shape :math:`(B, 3)`."""
        check_videos(samples, prompts, self.label)
        return self._rate_frames(samples[:, choose_frames(samples.shape[1], self.fps, self.settings.fps)], prompts)

    def _rate_frames(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns the same of chosen frames."""
        check_videos(frames, prompts, self.label)
        size = resized(frames.shape[-2], frames.shape[-1], LEAST_PIXELS, self.settings.pixels)
        pixels = normalize_pixels(self.fit(frames.flatten(0, 1), *size)).unflatten(0, frames.shape[:2])
        latent = torch.stack([self._rate(x, prompt) for x, prompt in zip(pixels, prompts, strict=True)])
        mean, std = (latent.new_tensor(values) for values in (self.settings.means, self.settings.stds))
        return (latent - mean) / std

    def _rate(self, frames: Tensor, prompt: str) -> Tensor:
        """Returns the latent scores of one video."""
        grid = patch_grid(frames)
        tokens = write_message(self.tokenizer, VIDEO, grid, INSTRUCTION, prompt)
        return recomputed(
            lambda x: self.network(to_patches(x), grid, tokens, self.video_token, self.reward_tokens), frames
        )


def choose_frames(frames: int, fps: float, target: float) -> list[int]:
    """Returns the numbers of the frames that are read, an even number of them, evenly spaced from the first to the last.

    Args:
        frames: The frames of the video.
        fps: The frames of a second of the video.
        target: The frames of a second that are read.

    Raises:
        ValueError: If the video has one frame.
    """
    if frames < FRAMES:
        raise ValueError(f"expected videos of at least {FRAMES} frames, got {frames}; set a larger number of frames")
    most = min(MOST_FRAMES, frames) // FRAMES * FRAMES
    count = round(min(max(frames / fps * target, LEAST_FRAMES), most) / FRAMES) * FRAMES
    chosen: list[int] = torch.linspace(0, frames - 1, count).round().long().tolist()
    return chosen


def read_settings(file: Path) -> Settings:
    """Returns the settings in ``model_config.json``.

    Raises:
        ValueError: If the file lacks a setting, or has one that is not supported.
    """
    content = read_json(str(file))
    for section, known in SUPPORTED.items():
        for name, expected in known.items():
            found = content.get(section, {}).get(name)
            if found != expected:
                raise ValueError(f"{file}: expected {section}.{name} to be {expected!r}, got {found!r}")
    try:
        data, lora = content["data_config"], content["peft_lora_config"]
        rank, alpha = lora["lora_r"], lora["lora_alpha"]
        scale = alpha / (math.sqrt(rank) if lora.get("use_rslora") else rank)
        norm = content.get("inference_config") or {}
        means, stds = (tuple(norm[f"{k}_{what}"] for k in DIMENSIONS) if norm else None for what in ("mean", "std"))
        return Settings(data["fps"], data["max_frame_pixels"], scale, means or (0.0,) * 3, stds or (1.0,) * 3)
    except KeyError as error:
        raise ValueError(f"{file} lacks {error}; set the folder that the authors published") from error


def checkpoints(path: str) -> list[Published]:
    """Returns the files of weights that a folder may have, the one of the most steps first; a hub id has the published one."""
    files = Path(path).expanduser().glob("checkpoint-*[0-9]/model.pth")
    found = sorted(files, key=lambda file: int(file.parent.name.rpartition("-")[2]), reverse=True)
    return [Published(f"{file.parent.name}/{file.name}") for file in found] or [WEIGHTS]


def merged(state: Mapping[str, Tensor], scale: float, file: Path) -> dict[str, Tensor]:
    r"""Returns the weights :math:`W + s B A` under the names of the model, from those of peft's model around it.

    Args:
        state: The weights :math:`W`, and :math:`A` and :math:`B` of the LoRA, with peft's names.
        scale: The factor :math:`s`.
        file: Their file, for messages.

    Raises:
        ValueError: If a weight lacks a matrix of its LoRA, or a matrix its weight.
    """
    plain = {name.removeprefix("base_model.model."): weight for name, weight in state.items()}
    ends = ("base_layer.weight", "lora_A.default.weight", "lora_B.default.weight")
    for stem in sorted({name.removesuffix(f".{end}") for name in plain for end in ends if name.endswith(f".{end}")}):
        missing = [f"{stem}.{end}" for end in ends if f"{stem}.{end}" not in plain]
        if missing:
            raise ValueError(f"{file} lacks {missing[0]}; set the checkpoint that the authors published")
        w, a, b = (plain.pop(f"{stem}.{end}") for end in ends)
        plain[f"{stem}.weight"] = w + scale * b @ a
    return {name.replace(".base_layer.", "."): weight for name, weight in plain.items()}


def _weights(weights: Mapping[str, float] | None) -> list[float]:
    """Returns the weights in the order of the dimensions."""
    given = dict.fromkeys(DIMENSIONS, 1.0) if weights is None else weights
    if not given or not set(given) <= set(DIMENSIONS):
        raise ValueError(f"VideoAlign.weights: expected weights of {', '.join(DIMENSIONS)}, got {sorted(given)}")
    return [float(given.get(name, 0.0)) for name in DIMENSIONS]


def _check_tokens(rows: int, tokens: int, file: Path, base: str) -> None:
    """Raises for a tokenizer that is not the one that the weights were trained with."""
    if rows != tokens:
        raise ValueError(
            f"{file} has embeddings of {rows} tokens, and the tokenizer of {base} with those of VideoAlign has {tokens}; set the "
            "base of these weights"
        )
