"""The demo of videos."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlr.evaluation.images import PAPER, Card, grid, to_image
from rlr.evaluation.report import Media
from rlr.io.video import video_bytes
from rlr.toy.demo.world import Words, World
from rlr.toy.world.motion import parse_video
from rlr.toy.world.prompts import held_out_video_prompts
from rlr.toy.world.tracker import check_videos

PLAYED, PRINTED = 256, 64
"""The side that small frames are enlarged to at most, in a video and in a strip."""
STRIP, GAP = 4, 4
"""How many frames a strip has, and how many pixels lie between them."""


class Videos(World):
    """Videos of the built-in world.

    Args:
        fps: Frames per second.
    """

    labels: ClassVar[Mapping[str, str]] = {
        "reward": "reward",
        "all": "exact check: all correct",
        "novel": "… of color–shape pairs never trained on",
        "motion": "… motion",
        "direction": "… direction",
        "speed": "… speed",
        "count": "… count",
        "color": "… colors",
        "shape": "… shapes",
        "binding": "… color with shape",
        "background": "… background",
        "dynamic": "dynamic degree",
        "diversity": "diversity",
    }
    tiles = ("all", "motion", "dynamic", "reward", "diversity")
    wide = True
    words = Words(
        title="A text-to-video model before and after alignment",
        check="a program that follows the things from frame to frame by rules",
        sheet="four frames of each video; not chosen; same noise on both sides; ✓ by the exact check",
        reading=(
            "Differences of shares are in percentage points. The interval is a percentile bootstrap over prompts (10,000 "
            "resamples) of the paired difference; it covers the choice of prompts and noises, not that of the training "
            "seed. Motion is that all things of a video move as the prompt says; direction and speed are of the prompts that "
            "name one. What a prompt says of an image has to be true in most frames. The dynamic degree is the share of "
            "videos in which anything moves, grows or shrinks by the same program, whatever the prompt says; VBench's, of "
            "the same name, measures optical flow. Diversity is the mean distance between two samples of one prompt, frame "
            "by frame, in average colors on grids of 1 to 8 cells; a model that collapses to one video per prompt has 0."
        ),
        method=(
            "The base is {base}. {updates} of {method} changed its trained weights so that the reward, {reward}, goes up on "
            "training prompts. The exact check takes no part in training: it is a program that finds the things in every "
            "frame, follows them, and compares them with the prompt."
        ),
        limits=(
            "This shows that the gradient does what it says, on a toy world of colored shapes at 32 × 32 pixels. It says "
            "nothing about natural videos, and one run has one training seed. The reward judges frames and knows nothing "
            "of motion: what becomes of it is a side effect."
        ),
        bases={
            "TinyVideo": "a small latent diffusion model in VideoCrafter's own format that ships with the library and was trained "
            "from scratch on captioned videos"
        },
        rewards={
            "TinyHPSv2": "a small CLIP in HPSv2's format that scores single frames (an update sees one frame of each video, and "
            "the rewards shown are means over all frames)"
        },
    )

    def __init__(self, fps: float) -> None:
        self.fps = fps

    def captions(self, number: int, seed: int) -> list[str]:
        return held_out_video_prompts(number, seed)

    def check(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The claims of :func:`rlr.toy.world.tracker.check_videos`; ``novel`` repeats ``all`` for pairs never trained on."""
        clips = [parse_video(prompt) for prompt in prompts]
        checks = check_videos(pixels, clips)
        new = torch.tensor([clip.spec.novel for clip in clips])
        return {**checks, "novel": checks["all"].where(new, torch.nan)}

    def still(self, pixels: Tensor) -> Image.Image:
        return strip([to_image(frame) for frame in enlarged(pixels, PRINTED)])

    def media(self, pixels: Tensor, text: str) -> Media:
        return Media(video_bytes(enlarged(pixels, PLAYED), self.fps), text, "video/mp4")

    def sheet(self, cards: Sequence[Card], title: str) -> Image.Image:
        return grid(cards, title, self.words.sheet, columns=2, size=lambda image: image)

    def files(self, media: Sequence[Sequence[Media]]) -> dict[str, bytes]:
        return {
            f"videos/{k:02d}-{name}.mp4": sample.content
            for k, pair in enumerate(media)
            for name, sample in zip(("base", "aligned"), pair, strict=True)
        }


def enlarged(frames: Tensor, side: int) -> Tensor:
    """Frames with shape (F, 3, H, W), every pixel as a square, the largest that fits into ``side``."""
    zoom = max(1, side // max(frames.shape[-2:]))
    return frames.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)


def strip(images: Sequence[Image.Image]) -> Image.Image:
    """Some of the images from the first to the last, side by side."""
    chosen = np.linspace(0, len(images) - 1, min(STRIP, len(images))).round().astype(int).tolist()
    width, height = images[0].size
    canvas = Image.new("RGB", (len(chosen) * (width + GAP) - GAP, height), PAPER)
    for k, number in enumerate(chosen):
        canvas.paste(images[number], (k * (width + GAP), 0))
    return canvas
