"""What every module does, trained or not: it samples from prompts, and scores its samples."""

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from rlr import lockstep
from rlr.chain import Chain
from rlr.data.stream import PromptBatch
from rlr.distributed import gather_objects
from rlr.objective import Objective
from rlr.rewards.base import Reward
from rlr.seeding import Stream, spawn


class Prediction(NamedTuple):
    r"""Samples with what made them.

    Args:
        samples: Pixels in [0, 1], with shape :math:`(B, *)`.
        prompts: The :math:`B` prompts.
        indices: Their numbers in the prompt file.
        seeds: The seed of the noise of each sample.
        rewards: The rewards, with shape :math:`(B)`; NaN for a sample that is not finite.
        fps: Frames per second of videos; None for images.
        notes: Further facts of each sample, as plain data for its file.
        parts: The scores of which a combined reward is made, by name, with shape :math:`(B, *)`.
    """

    samples: Tensor
    prompts: list[str]
    indices: list[int]
    seeds: list[int]
    rewards: Tensor
    fps: float | None = None
    notes: Sequence[Mapping[str, Any]] = ()
    parts: Mapping[str, Tensor] = MappingProxyType({})


class Means:
    """Means of named values over the samples of all ranks, however unevenly the ranks share them."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, name: str, values: Tensor) -> None:
        r"""Adds values of this rank, with shape :math:`(B)`; those that are not finite do not count."""
        known = values.detach().cpu().double()
        finite = known[known.isfinite()]
        total, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = (total + finite.sum().item(), count + len(finite))

    def reduce(self) -> dict[str, float]:
        """Returns the mean of each name, the same on all ranks, and starts again; NaN where no value is finite."""
        # Lightning's sync_dist averages batch sizes over ranks in an integer, which is wrong for uneven shares
        ranks = gather_objects(self._sums)
        self._sums = {}
        names = dict.fromkeys(name for sums in ranks for name in sums)
        return {name: _mean([sums[name] for sums in ranks if name in sums]) for name in names}


def _mean(sums: Sequence[tuple[float, int]]) -> float:
    count = sum(n for _, n in sums)
    return sum(total for total, _ in sums) / count if count else float("nan")


class Sampling(LightningModule):
    """Samples and scores prompts in ``validate``, ``test`` and ``predict``.

    Args:
        chain: The chain to sample from.
        reward: The reward.
        seed: The seed of all noise.
    """

    tests: bool
    """Whether ``test`` samples its batches; an :class:`~rlr.callbacks.Evaluation` makes samples of its own, and unsets this."""

    def __init__(self, chain: Chain, reward: Reward, seed: int) -> None:
        super().__init__()
        self.tests = True
        self.chain = chain
        self.reward = reward.requires_grad_(False)
        self.objective = Objective(chain.model, reward)
        self.seed = seed
        self._means = Means()
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Leaves all parts in eval mode: a replayed step must equal the recorded one, and a score must not vary."""
        super().train(False)
        self.training = mode
        return self

    @torch.no_grad()
    def generate(self, batch: PromptBatch) -> Prediction:
        """Samples and scores a batch; the noise of a sample depends on the numbers of its prompt and itself alone."""
        prompts, seeds = list(batch.prompts), self.seeds(batch)
        samples = sample(self.chain, prompts, seeds)
        scores = self.objective.rate(samples, prompts)
        self.objective.calls = 0  # evaluation costs are no costs of training
        return Prediction(
            samples, prompts, list(batch.indices), seeds, scores.values, self.chain.model.size.fps, (), scores.parts
        )

    def idle(self) -> None:
        """Makes the passes of a batch for the sake of processes that have one; see :mod:`rlr.lockstep`."""
        sample(self.chain, [""], [0])

    def seeds(self, batch: PromptBatch) -> list[int]:
        """Returns the seed of the noise of each sample: that of sample ``k`` of prompt ``i`` for number ``i S + k``."""
        data = getattr(self._trainer, "datamodule", None)
        samples = getattr(data, "evaluation_samples", 1)
        return [spawn(self.seed, Stream.EVALUATION, *divmod(index, samples)) for index in batch.indices]

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, Any]:
        """Adds to ``val/reward``, and to the same under the reward's name."""
        return self._evaluate(batch)

    def test_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, Any] | None:
        """Adds to ``test/reward``, and to the same under the reward's name; does nothing where an evaluation measures."""
        return self._evaluate(batch) if self.tests else None

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> Prediction:
        """Returns the samples; a :class:`~rlr.callbacks.PredictionWriter` writes them."""
        if not batch.prompts:
            # a rank without a sample waits for the others
            if lockstep.enabled:
                self.idle()
            return Prediction(torch.empty(0), [], [], [], torch.empty(0))
        return only_finite(self.generate(batch))

    def on_validation_epoch_end(self) -> None:
        """Logs the means over all prompts and ranks as ``val/…``."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Logs the means over all prompts and ranks as ``test/…``."""
        self._log("test")

    def _evaluate(self, batch: PromptBatch) -> dict[str, Any]:
        prediction = self.predict_step(batch, 0)
        if prediction.prompts:
            self._add(prediction)
        return prediction._asdict()

    def _add(self, prediction: Prediction) -> None:
        """Adds the values of a batch to the means."""
        self._means.add("reward", prediction.rewards)
        named = {**self.reward.format(prediction.rewards), **prediction.parts}
        for name, values in named.items():
            each = values.flatten(1).mean(1) if values.ndim > 1 else values
            self._means.add(name.replace(" ", "_"), each.where(prediction.rewards.isfinite(), torch.nan))

    def _log(self, stage: str) -> bool:
        """Logs the means; returns whether there are any."""
        means = {f"{stage}/{name}": value for name, value in self._means.reduce().items()}
        # the means are equal on all ranks already, and so is their average
        self.log_dict(means, prog_bar=True, sync_dist=True, batch_size=1)
        return bool(means)


@torch.no_grad()
def sample(chain: Chain, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    r"""Returns one sample per prompt, each from the noise of its seed, as pixels in [0, 1] with shape :math:`(B, *)`."""
    chain = chain.unrounded()
    return chain.model.decode(chain.sample(chain.encode(prompts), chain.draw(seeds)).states[0])


def finite(pixels: Tensor) -> Tensor:
    r"""Returns which of the :math:`B` samples have no pixel that is NaN or infinite, with shape :math:`(B)`."""
    return pixels.flatten(1).isfinite().all(1)


def only_finite(prediction: Prediction) -> Prediction:
    """Returns the prediction with a reward of NaN for each sample that is not finite, and warns of these samples."""
    sound = finite(prediction.samples)
    named = list(zip(prediction.indices, prediction.prompts, sound.tolist(), strict=True))
    if broken := [(index, prompt) for index, prompt, whole in named if not whole]:
        warn_not_finite(broken)
    return prediction._replace(rewards=prediction.rewards.where(sound.to(prediction.rewards.device), torch.nan))


def warn_not_finite(samples: Sequence[tuple[int, str]]) -> None:
    """Warns of samples, each a number and its prompt, whose pixels are not finite."""
    named = ", ".join(f"{number} ({str(prompt)[:80]!r})" for number, prompt in samples[:5])
    more = f" and {len(samples) - 5} more" if len(samples) > 5 else ""
    warnings.warn(
        f"samples: expected finite pixels, found NaN or infinity in sample {named}{more}; these samples do not count. "
        "Check the decoder and the weights, or set dtype to float32 or bfloat16",
        stacklevel=3,
    )
