"""What a judge is asked, and how its answer becomes a score."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from rlr.io.chat import Unreadable
from rlr.io.http import clean

FINAL_SCORE = """\
You are given a text caption and a generated image based on that caption. Your task is to evaluate this image based on two key \
criteria:
1. Alignment with the Caption: Assess how well this image aligns with the provided caption. Consider the accuracy of depicted \
objects, their relationships, and attributes as described in the caption.
2. Overall Image Quality: Examine the visual quality of this image, including clarity, detail preservation, color accuracy, and \
overall aesthetic appeal.
Based on the above criteria, assign a score from 1 to 5 after 'Final Score:'.
Your task is provided as follows:
Text Caption: [{prompt}]"""
"""UnifiedReward's question about an image as Flow-GRPO asks it, without its first line ``<image>``, which some servers insert."""

AXES = """\
You are presented with a generated image and its associated text caption. Your task is to analyze the image across multiple \
dimensions in relation to the caption. Specifically:
Provide overall assessments for the image along the following axes (each rated from 1 to 5):
- Alignment Score: How well the image matches the caption in terms of content.
- Coherence Score: How logically consistent the image is (absence of visual glitches, object distortions, etc.).
- Style Score: How aesthetically appealing the image looks, regardless of caption accuracy.

Output your evaluation using the format below:

Alignment Score (1-5): X
Coherence Score (1-5): Y
Style Score (1-5): Z

Your task is provided as follows:
Text Caption: [{prompt}]"""
"""UnifiedReward 2.0's question about an image."""

VIDEO_AXES = """\
You are presented with a generated video and its associated text caption. Your task is to analyze the video across multiple \
dimensions in relation to the caption. Specifically:
Provide overall assessments for the video along the following axes (each rated from 1 to 5):
- Alignment Score: How well the video matches the caption in terms of content.
- Physics Score: How well the gravity, movements, collisions, and interactions make physical sense.
- Style Score: How visually appealing the video looks, regardless of caption accuracy.

Output your evaluation using the format below:

Alignment Score (1-5): X
Physics Score (1-5): Y
Style Score (1-5): Z

Your task is provided as follows:
Text Caption: [{prompt}]"""
"""UnifiedReward 2.0's question about the frames of a video."""


class Question(ABC):
    """A question about an image, or about the frames of a video.

    Args:
        template: The question, with ``{prompt}`` where the prompt stands.

    Raises:
        ValueError: If the template has no place for the prompt.
    """

    label: str = "VLMJudge"
    """What to call the score in tables and logs."""

    def __init__(self, template: str) -> None:
        if "{prompt}" not in template:
            raise ValueError(f"{type(self).__name__}.template: expected {{prompt}} in it, got {template!r}")
        self.template = template

    def text(self, prompt: str) -> str:
        """Returns the question about a prompt, in which nothing but ``{prompt}`` is replaced."""
        return self.template.replace("{prompt}", prompt)

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Fields of the request beside model and messages."""

    @abstractmethod
    def read(self, choice: Mapping[str, Any]) -> float:
        """Returns the score in the first choice of a completion.

        Raises:
            Unreadable: If the choice has no score that can be read.
        """


class YesNo(Question):
    r"""The probability of the answer *yes*, as in VQAScore.

    :math:`P(\mathrm{yes})` is the sum over the spellings of *yes* (whatever its case and the blanks around it) among the
    most probable first tokens. The published score is of a model of its own, CLIP-FlanT5, and of the one token ``Yes``.

    Args:
        template: The question; the default one is published.
        normalize: Whether to return :math:`P(\mathrm{yes}) / (P(\mathrm{yes}) + P(\mathrm{no}))`, for models that begin their
            answer with something else.
        tokens: The number of first tokens that the endpoint states, 20 at most for OpenAI's and by default for vLLM's.

    References:
        | Evaluating Text-to-Visual Generation with Image-to-Text Generation (Lin et al., 2024)
        | https://arxiv.org/abs/2404.01291
    """

    label = "VLM_yes"

    def __init__(
        self,
        template: str = 'Does this figure show "{prompt}"? Please answer yes or no.',
        normalize: bool = False,
        tokens: int = 20,
    ) -> None:
        super().__init__(template)
        self.normalize, self.tokens = normalize, tokens

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": self.tokens}

    def read(self, choice: Mapping[str, Any]) -> float:
        try:
            first = choice["logprobs"]["content"][0]["top_logprobs"]
            yes, no = (_probability(first, word) for word in ("yes", "no"))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            raise Unreadable(f"the answer states no log-probabilities: {_excuse(choice)}") from None
        if not 0 < yes + no <= 1.001:
            raise Unreadable(f"neither yes nor no is among the {len(first)} most probable answers: {_excuse(choice)}")
        return yes / (yes + no) if self.normalize else min(yes, 1.0)


class Scored(Question):
    """Numbers that the answer states after their names, and their weighted mean over the largest number.

    Args:
        template: The question.
        weights: The weight of each name.
        highest: The largest number, by which the mean is divided.
        tokens: The most tokens of the answer.

    Raises:
        ValueError: If there is no positive weight.
    """

    def __init__(self, template: str, weights: Mapping[str, float], highest: float = 5.0, tokens: int = 1024) -> None:
        super().__init__(template)
        if not weights or min(weights.values()) < 0 or not sum(weights.values()) > 0:
            raise ValueError(f"{type(self).__name__}.weights: expected weights >= 0, one above 0, got {dict(weights)}")
        self.weights, self.highest, self.tokens = dict(weights), highest, tokens

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"temperature": 0, "max_tokens": self.tokens}

    def read(self, choice: Mapping[str, Any]) -> float:
        message = choice.get("message")
        text = message.get("content") if isinstance(message, Mapping) else None
        found = {name: self._number(name, text) for name in self.weights} if isinstance(text, str) else {}
        missing = [name for name in self.weights if found.get(name) is None]
        if missing:
            raise Unreadable(
                f"the answer states no number from 1 to {self.highest:g} after {missing[0]}: {_excuse(choice)}"
            )
        total = sum(weight * (found[name] or 0.0) for name, weight in self.weights.items())
        return total / sum(self.weights.values()) / self.highest

    def _number(self, name: str, text: str) -> float | None:
        """Returns the last number after a name: a model that thinks aloud names its score at the end."""
        numbers = re.findall(rf"{re.escape(name)}(?:\s*\(1-{self.highest:g}\))?\s*:\s*\**\s*(\d+(?:\.\d+)?)", text)
        number = float(numbers[-1]) if numbers else math.nan
        return number if 1 <= number <= self.highest else None


class FinalScore(Scored):
    """UnifiedReward's score of an image as Flow-GRPO uses it: the number from 1 to 5 after ``Final Score:``, over 5.

    Flow-GRPO resizes images to 512 × 512 (``size: 512`` of the judge) and scores an answer without a number 0 (``fallback: 0``).

    Args:
        template: The question; the default one is published.
        tokens: The most tokens of the answer.

    References:
        | Unified Reward Model for Multimodal Understanding and Generation (Wang et al., 2025)
        | https://arxiv.org/abs/2503.05236
        | https://github.com/yifan123/flow_grpo, ``flow_grpo/rewards.py``, ``unifiedreward_score_sglang``
    """

    label = "UnifiedReward"

    def __init__(self, template: str = FINAL_SCORE, tokens: int = 1024) -> None:
        super().__init__(template, {"Final Score": 1.0}, tokens=tokens)


class AxisScores(Scored):
    """UnifiedReward 2.0's scores of alignment, coherence and style, from 1 to 5: their weighted mean, over 5.

    The question and the format of the answer are published, the mean is ours.

    Args:
        weights: The weight of each axis, by default 1.
        template: The question; for videos pass :data:`VIDEO_AXES`, whose second axis is ``Physics``.
        tokens: The most tokens of the answer.

    References:
        | https://github.com/CodeGoat24/UnifiedReward, ``inference_qwen/UnifiedReward-2.0-inference``
    """

    label = "UnifiedReward2"

    def __init__(self, weights: Mapping[str, float] | None = None, template: str = AXES, tokens: int = 1024) -> None:
        axes = weights or {"Alignment": 1.0, "Coherence": 1.0, "Style": 1.0}
        super().__init__(template, {f"{axis} Score": weight for axis, weight in axes.items()}, tokens=tokens)


class VideoAxisScores(AxisScores):
    """UnifiedReward 2.0's scores of a video's alignment, physics and style; else as :class:`AxisScores`.

    Args:
        weights: The weight of each axis, by default 1.
        tokens: The most tokens of the answer.
    """

    label = "UnifiedReward2_video"

    def __init__(self, weights: Mapping[str, float] | None = None, tokens: int = 1024) -> None:
        super().__init__(weights or {"Alignment": 1.0, "Physics": 1.0, "Style": 1.0}, VIDEO_AXES, tokens)


def _probability(first: Sequence[Mapping[str, Any]], word: str) -> float:
    return sum(math.exp(one["logprob"]) for one in first if one["token"].strip(" \n▁Ġ").lower() == word)


def _excuse(choice: Mapping[str, Any]) -> str:
    """Returns the beginning of what was answered instead."""
    message = choice.get("message")
    return repr(clean(str(message.get("content") if isinstance(message, Mapping) else choice))[:120])
