"""Diffusive chain of thought: each prompt is rewritten in stages, coarse to fine, one for each group of steps."""

from collections.abc import Sequence

from rlr.data.cleaning import ASSETS, texts
from rlr.data.prompt_file import read
from rlr.data.prompts import PromptData
from rlr.data.staged.stages import StageWriter
from rlr.models.staged import StagedPrompt

SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
"""The splits that each command of the trainer reads."""


class DCoT(PromptData):
    r"""Another set of prompts, each rewritten in stages.

    Rewards, tables and files see the whole prompts; in each step, a model sees the prompt of the step's stage. Batches,
    order, numbers of samples and filter are those of ``data``.

    References:
        | Zeroth-order Informed Fine-Tuning for Diffusion Model: A Recursive Likelihood Ratio Optimizer (Ren et al., 2025)
        | https://arxiv.org/abs/2502.00639

    Args:
        data: The whole prompts.
        writer: Writes the stages.
        starts: The fractions of the chain after which the second and further stages begin, increasing, in (0, 1); by
            default all stages have equally many steps.
    """

    def __init__(self, data: PromptData, writer: StageWriter, starts: Sequence[float] | None = None) -> None:
        super().__init__(data.batch_size, data.samples_per_prompt, data.evaluation_samples, data.seed, data.shuffle)
        self.data = data
        self.writer = writer
        self.starts = starts

    def prepare_data(self) -> None:
        """Lets one process write the stages, before the others read them."""
        for split in SPLITS.get(self._command(), ()):
            self.read(split)

    def prompts(self, split: str) -> list[StagedPrompt]:
        prompts = self.data.read(split)
        written = self.writer.write(prompts)
        return [StagedPrompt(prompt, stages, self.starts) for prompt, stages in zip(prompts, written, strict=True)]

    def check(self, command: str) -> None:
        """Checks the whole prompts; stages are written later, by one process."""
        self.data.check(command)

    def remedy(self, split: str) -> str:
        """That of the whole prompts."""
        return self.data.remedy(split)


class HandPrompts(PromptData):
    """The five prompts of hands of Ren et al. (2025), Appendix A.5, for training and for evaluation alike.

    The paper trains and evaluates on these five, so results say how well a model has learned them, and nothing about
    other prompts.
    """

    def prompts(self, split: str) -> list[str]:
        return texts(read(ASSETS / "hands.jsonl"))
