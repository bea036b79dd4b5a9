r"""The one training step of every method, for images and videos alike.

A batch of prompts becomes a rollout. When a round of rollouts is complete, the estimator turns it into the terms of one or
several updates, and the updater makes each. Nothing here knows the method, the model or the reward.

Every random number is a function of the seed and of the number of samples that the run has seen: sample :math:`i` of the
run has its own noise, whatever batch, rank or round it falls into, and whether or not the run was interrupted.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from rlr.data.stream import PromptBatch
from rlr.estimators.base import Estimator, no_terms
from rlr.estimators.divergence import Penalty
from rlr.models.base import DiffusionModel
from rlr.modules.checkpoint import load_trained
from rlr.modules.checks import check_parts, check_scoring, check_training
from rlr.modules.memory import Memory
from rlr.modules.optimization import Optimization, Settings
from rlr.modules.profiler import Profiler
from rlr.modules.progress import Progress, passed
from rlr.modules.round_log import RoundLog
from rlr.modules.sampling import Sampling
from rlr.modules.speed import Speed
from rlr.modules.training_state import STATE, TrainingState
from rlr.modules.update import StepReport, Updater
from rlr.rewards.base import Reward, Scores, without_rounding
from rlr.rollout import Rollout, fault
from rlr.samplers import Sampler
from rlr.scoring import AtOnce, Scoring
from rlr.seeding import Stream, spawn


class Alignment(Sampling):
    r"""Trains a diffusion model to raise a reward, :math:`\max_\theta E[R(x_0)]`.

    Args:
        model: The base model; its weights with ``requires_grad`` are trained.
        sampler: The sampler.
        reward: The reward.
        estimator: The gradient estimator.
        optimization: How the weights change: learning rate, clipping, batches an update.
        penalty: The divergence from the base model that is subtracted from the reward; the model must have a reference,
            as one with a LoRA does. None subtracts nothing.
        memory: What is given up to save memory.
        seed: Decides all noise.
        scoring: Where scores are computed, such as :class:`~rlr.scoring.InBackground`; by default where they are needed.
        speed: How the denoising networks compute, such as compiled; by default as they are.
    """

    def __init__(
        self,
        model: DiffusionModel,
        sampler: Sampler,
        reward: Reward,
        estimator: Estimator,
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
        penalty: Penalty | None = None,
        memory: Memory = Memory(),  # noqa: B008 - frozen
        seed: int = 0,
        scoring: Scoring | None = None,
        speed: Speed = Speed(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(memory.chain(model, sampler), reward, seed)
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint holds the trained weights only; `on_load_checkpoint` is as strict
        self.estimator = estimator
        self.optimization = optimization
        self.objective.scoring = scoring or AtOnce()
        self.objective.micro_batch = memory.micro_batch
        self.penalty = penalty
        self.speed = speed
        self.updater = Updater(self, model, optimization, memory)
        self.state = TrainingState(estimator, reward, self.updater, penalty)
        self._profiler = Profiler(self.device)
        self._check()

    def _check(self) -> None:
        check_parts(self.chain, self.reward, self.estimator, self.penalty)

    def setup(self, stage: str) -> None:
        """Checks that the model can be trained, and prepares its networks."""
        if stage == "fit":
            check_training(self.chain.model, self.reward, self.estimator, self.trainer)
            check_scoring(self.objective.scoring, self.estimator, self.trainer)
        self.speed.apply(self.chain.model, self.trainer.strategy)

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self.state.progress

    @property
    def weights(self) -> list[nn.Parameter]:
        r"""The trained weights :math:`\theta`."""
        return self.updater.weights

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follows casts, but keeps trained weights in float32 or float64: an update is smaller than the spacing of bf16."""
        trained = {id(tensor) for weight in self.weights for tensor in (weight, weight.grad)}
        return super()._apply(lambda x: without_rounding(fn, x) if id(x) in trained else fn(x), recurse)

    # ------------------------------------------------------------------ training

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Samples a rollout, and learns from the round when it is complete."""
        if not len(self.state.round):
            self._profiler = Profiler(self.device)
        with self._profiler.section("rollout"):
            self.state.restore(self._sample)
            rollout = self._sample(batch.prompts, self.progress.samples)
        self.state.round.add(self.progress.samples, rollout)
        self._initialize_statistics(rollout)
        if self.objective.scoring.ahead:
            rollout.begin_scores()
        self.progress.batches += 1
        self.progress.samples += len(rollout) * self.trainer.world_size
        if len(self.state.round) == self.optimization.accumulate:
            self._learn(self.state.round.take(), self._profiler)

    def _sample(self, prompts: Sequence[str], number: int) -> Rollout:
        """Samples a rollout whose first sample, on rank 0, has this number in the run."""
        first = number + self.global_rank * len(prompts)
        noises = self.chain.draw([spawn(self.seed, Stream.SAMPLE, first + i) for i in range(len(prompts))])
        # the same frames of videos on all ranks
        objective = self.objective.of_frames(spawn(self.seed, Stream.FRAMES, number))
        rounds = self._round()
        chain = self.chain.in_round(rounds, spawn(self.seed, Stream.WINDOW, rounds))
        return self.estimator.rollout(chain, prompts, noises, objective, spawn(self.seed, Stream.ROLLOUT, number))

    def _round(self) -> int:
        """Returns the number of rounds before the present one, the same for all of its rollouts."""
        return (self.progress.batches - len(self.state.round)) // self.optimization.accumulate

    def _initialize_statistics(self, rollout: Rollout) -> None:
        """Gives a reward that scales by running statistics those of the run's first rollout to begin with."""
        if self.progress.batches == 0 and self.reward.statistics():
            with torch.no_grad():
                scores = rollout.objective(rollout.trajectory.states[0], rollout.prompts)
            self.objective.calls = 0  # the round scores these samples again
            self.reward.update_statistics(scores, provisional=True)

    def _learn(self, rollouts: list[Rollout], profiler: Profiler) -> None:
        """Makes the updates of a round."""
        report, before = StepReport(), self.progress.updates
        penalty = self.penalty.terms if self.penalty else no_terms
        if self.penalty:
            self.penalty.begin(rollouts, self.progress.batches // self.optimization.accumulate - 1)
        for terms in self.estimator.updates(rollouts, penalty):
            if 0 <= self.trainer.max_steps <= self.trainer.global_step:
                break
            report = self.updater.step(terms, profiler, partial(fault, rollouts))
            self.progress.updates += report.failure is None
        scores = Scores.join([rollout.scores for rollout in rollouts])
        self.reward.update_statistics(scores)
        self._count(scores)
        due = passed(before, self.progress.updates, self.optimization.log_kl_every)
        self._log_round(RoundLog(rollouts, scores, report, profiler), due)

    def _count(self, scores: Scores) -> None:
        self.progress.reward_calls += self.objective.calls * self.trainer.world_size
        self.objective.calls = 0
        self.objective.warn_if_constant(scores.values)
        if scores.values.isfinite().all():
            self.progress.add_reward(scores.values.mean().item())

    def _log_round(self, log: RoundLog, measure: bool) -> None:
        """Logs a round; a penalty has measured the divergence already."""
        measured = log.divergence() if measure and not self.penalty and self.chain.model.has_reference else {}
        running = self.reward.format(self.progress.running or 0.0)
        self.log_dict(running, prog_bar=True, logger=False, batch_size=len(log))
        shared: dict[str, Any] = {**log.rewards(self.reward), **measured, **log.shared(self.estimator)}
        self.log_dict(shared, sync_dist=True, batch_size=len(log))
        own: dict[str, Any] = log.own(self.progress, len(log) * self.trainer.world_size)
        self.log_dict(own, batch_size=len(log))
        self._log_step()

    def _log(self, stage: str) -> bool:
        logged = super()._log(stage)
        if logged:
            self._log_step()
        return logged

    def _log_step(self) -> None:
        """Logs the step of all that is logged with it, the number of updates; Lightning would count batches from 0."""
        self.log("step", float(self.trainer.global_step or self.progress.updates), batch_size=1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips; by now a scaled gradient has been unscaled."""
        self.updater.clip()

    def configure_optimizers(self) -> Any:
        """Returns the optimizer of the trained weights alone, and the learning rate schedule."""
        configured = self.optimization.configure(self.weights, self.trainer.max_steps)
        self._settings = Settings(configured["optimizer"] if isinstance(configured, dict) else configured)
        return configured

    def on_train_start(self) -> None:
        """Keeps the settings of the config where the state of a checkpoint has replaced them."""
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        for optimizer in self.trainer.optimizers:
            self._settings.restore(optimizer, schedulers, self._origin)

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps of the weights only the trained ones, and adds what else a resumed run needs."""
        trained = self.chain.model.trainable
        checkpoint["state_dict"] = {name: weight.detach() for name, weight in trained.items()}
        checkpoint[STATE] = self.state.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Loads the trained weights and the progress of the run.

        Raises:
            ValueError: If a weight is missing, foreign, or of another shape, or the checkpoint is of another version.
        """
        self.state.load(checkpoint.get(STATE), self._origin)
        load_trained(self.chain.model, checkpoint["state_dict"], self._origin)
        checkpoint["state_dict"] = {}

    def on_fit_start(self) -> None:
        """Takes up the rest of the state, which sampling does not need."""
        self.state.resume(self._origin)

    @property
    def _origin(self) -> str:
        """What a message calls the checkpoint that is being loaded."""
        return str(path) if self._trainer and (path := self._trainer.ckpt_path) else "the checkpoint"
