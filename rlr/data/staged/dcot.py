r"""Diffusive chain of thought: prompts that are told in stages, coarse to fine, to three groups of steps."""

from collections.abc import Sequence

from rlr.data.cleaning import ASSETS, texts
from rlr.data.prompts import PromptData, read
from rlr.data.staged.stages import StageWriter
from rlr.models.staged import StagedPrompt

ASKED = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
"""The splits that each command of the trainer reads."""


class DCoT(PromptData):
    r"""Another set of prompts, each told in stages.

    Rewards, tables and files see the whole prompts; a model is told, in each step, the prompt of the step's stage.
    Batches, order and numbers of samples are those of ``data``.

    References:
        | Zeroth-order Informed Fine-Tuning for Diffusion Model: A Recursive Likelihood Ratio Optimizer (Ren et al., 2025)
        | https://arxiv.org/abs/2502.00639

    Args:
        data: The whole prompts.
        writer: Writes the stages.
        starts: The shares of the chain after which the second and further stages begin, increasing, in (0, 1); by
            default all stages have equally many steps.
    """

    def __init__(self, data: PromptData, writer: StageWriter, starts: Sequence[float] | None = None) -> None:
        super().__init__(data.batch_size, data.samples_per_prompt, data.evaluation_samples, data.seed, data.shuffle)
        self.data = data
        self.writer = writer
        self.starts = starts
        self._staged: dict[str, list[StagedPrompt]] = {}

    def prepare_data(self) -> None:
        """Has the stages written by one process, where others would ask for the same."""
        command = self.trainer.state.fn if self.trainer else None
        for split in ASKED.get(str(command.value) if command else "", ()):
            self.prompts(split)

    def prompts(self, split: str) -> list[str]:
        if split not in self._staged:
            self._staged[split] = self._write(self.data.prompts(split))
        return list(self._staged[split])

    def _write(self, prompts: list[str]) -> list[StagedPrompt]:
        stages = self.writer.write(prompts)
        return [StagedPrompt(prompt, told, self.starts) for prompt, told in zip(prompts, stages, strict=True)]

    def remedy(self, split: str) -> str:
        """That of the whole prompts."""
        return self.data.remedy(split)


class HandPrompts(PromptData):
    r"""The five prompts of hands of Ren et al. (2025), Appendix A.5, for training and for evaluation alike.

    The paper trains and evaluates on these five, so results say how well a model has learnt them, and nothing of others.

    Args:
        batch_size: The samples :math:`B` a process takes for a batch.
        samples_per_prompt: The samples :math:`k` of one prompt, side by side in a training batch.
        evaluation_samples: The samples of each prompt in validation, test and prediction.
        seed: Decides the order of each training pass.
        shuffle: Whether to read training prompts in random order.
    """

    def prompts(self, split: str) -> list[str]:
        return texts(read(ASSETS / "hands.jsonl"))
