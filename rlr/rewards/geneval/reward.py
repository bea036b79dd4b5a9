r"""The reward GenEval: a detector finds objects, CLIP names their colors, and a rule compares both with the prompt."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from rlr.io.text import quote
from rlr.rewards.base import Reward
from rlr.rewards.geneval.metadata import Check, read_checks
from rlr.rewards.geneval.objects import Detection, Detector, Objects, select
from rlr.rewards.geneval.rules import Correct, Rule
from rlr.rewards.pixels import Image, to_images

COUNTING = "counting"
"""The task in which objects must be found with more confidence."""

Colors = Callable[[Image, Sequence[Detection], str], Sequence[str]]
"""Returns the colors of objects of one name in an image."""


class GenEval(Reward):
    r"""Whether an image shows the objects of its prompt, in number, color and position.

    Prompts are those of the benchmark or of Flow-GRPO's training set, whose ``.jsonl`` files say what each one asks for.

    Args:
        metadata: The file, or files, of the prompts and of what they ask for. :class:`~rlr.data.prompt_file.PromptFile` reads
            the prompts from the same file.
        detector: What finds the objects: any callable that takes RGB images, arrays of 8-bit numbers with shape (H, W, 3), and
            returns the :class:`~rlr.rewards.geneval.objects.Detection`\ s of each. By default
            :class:`~rlr.rewards.geneval.mask2former.Mask2Former`.
        colors: What names the colors of objects; by default :class:`~rlr.rewards.geneval.colors.CLIPColors`.
        rule: How objects become a score; by default the benchmark's, :class:`~rlr.rewards.geneval.rules.Correct`.
        threshold: The confidence that an object must exceed.
        counting_threshold: The same in the task ``counting``.
        most: The largest number of objects of one name.
        overlap: See :func:`~rlr.rewards.geneval.objects.select`; 1 keeps all objects.

    Raises:
        FileNotFoundError: If a file or the weights of a default cannot be found.
        ValueError: If a file is not in the benchmark's format.
    """

    differentiable = False

    def __init__(
        self,
        metadata: str | list[str],
        detector: Detector | None = None,
        colors: Colors | None = None,
        rule: Rule | None = None,
        threshold: float = 0.3,
        counting_threshold: float = 0.9,
        most: int = 16,
        overlap: float = 1.0,
    ) -> None:
        super().__init__()
        self.checks = read_checks([metadata] if isinstance(metadata, str) else metadata)
        self.detector = detector or _mask2former()
        self.colors = colors or _clip_colors()
        self.rule = rule or Correct()
        self.threshold, self.counting_threshold = threshold, counting_threshold
        self.most, self.overlap = most, overlap

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        r"""Returns one score an image.

        Raises:
            ValueError: If a prompt is not in the files, or the detector does not return one list an image.
        """
        checks = [self.check_of(prompt) for prompt in prompts]
        images = to_images(samples, prompts, self.label)
        found = self.detector(images)
        if len(found) != len(images):
            raise ValueError(
                f"GenEval.detector: expected the objects of {len(images)} images, got those of {len(found)}; return an empty "
                "list for an image without objects"
            )
        scores = [self._rate(*one) for one in zip(images, found, checks, strict=True)]
        return torch.tensor(scores, dtype=samples.dtype, device=samples.device)

    def check_of(self, prompt: str) -> Check:
        """Returns what a prompt asks for.

        Raises:
            ValueError: If the files do not say it.
        """
        if prompt.strip() not in self.checks:
            raise ValueError(
                f"GenEval: expected a prompt of its {len(self.checks)}, got {quote(prompt)}; set metadata to the file that data "
                "reads the prompts from"
            )
        return self.checks[prompt.strip()]

    def objects(self, detections: Sequence[Detection], check: Check) -> Objects:
        """Returns the objects that count for a prompt."""
        threshold = self.counting_threshold if check.tag == COUNTING else self.threshold
        return select(detections, threshold, self.most, self.overlap)

    def _rate(self, image: Image, detections: Sequence[Detection], check: Check) -> float:
        return self.rule(self.objects(detections, check), check, partial(self.colors, image))


def _mask2former() -> Detector:
    # transformers takes seconds to import
    from rlr.rewards.geneval.mask2former import Mask2Former

    return Mask2Former()


def _clip_colors() -> Colors:
    from rlr.rewards.geneval.colors import CLIPColors

    return CLIPColors()
