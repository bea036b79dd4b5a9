r"""The one training step of every method, for pictures and videos alike.

A roll-out is recorded, the estimator turns it into surrogate losses one at a time, each is backpropagated before the
next is built, and the optimiser steps on the sum. An estimator that replays keeps its roll-outs first, and then makes several
updates of them. Nothing here knows the method, the model or the reward.

Every random number is a function of the seed and of how many samples the run has seen: sample :math:`i` of the run
has its own noise, whatever batch, rank or micro-batch it falls into, and whether or not the run was interrupted.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from rlr.chain import Chain, Trajectory
from rlr.data.stream import PromptBatch
from rlr.estimators.base import Estimator, Term, score
from rlr.estimators.divergence import Penalty, path_divergence
from rlr.estimators.replay import Experience, Minibatch, ReplayEstimator
from rlr.models.base import DiffusionModel
from rlr.modules.checkpoint import load_trained
from rlr.modules.ledger import Ledger
from rlr.modules.meter import Meter
from rlr.modules.offload import Offload
from rlr.modules.pace import Pace
from rlr.modules.progress import Progress
from rlr.modules.randomness import random_state, set_random_state
from rlr.modules.round import Round
from rlr.modules.sampling import Sampling
from rlr.modules.shown import shown
from rlr.rewards.base import Reward
from rlr.samplers import Sampler
from rlr.seeding import Stream, spawn

STATE = "alignment"
"""The key under which a checkpoint holds what is this module's own."""


class Alignment(Sampling):
    r"""Trains a diffusion model to raise a reward, :math:`\max_\theta E[R(x_0)]`.

    Args:
        model: The base model; its weights with ``requires_grad`` are trained.
        sampler: The sampler.
        reward: The reward.
        estimator: The gradient estimator.
        lr: The learning rate.
        betas: AdamW's :math:`\beta_1, \beta_2`.
        weight_decay: AdamW's weight decay.
        optimizer: Makes another optimiser than AdamW from the weights; the three arguments above are then unused.
        clip_norm: The largest norm of the gradient; longer ones are scaled down to it.
        accumulate: How many batches are rolled out before the weights change. They make one update, with their mean
            gradient; or a round, of which an estimator that replays, such as DDPO, makes several.
        warmup: Over how many updates the learning rate rises linearly to its full value.
        cooldown: Over how many of the last updates of ``trainer.max_steps`` it falls linearly towards 0: what single
            noisy gradients have left in the weights then averages out.
        log_terms: Whether to log the norm of each kind of term's gradient and the cosines between them, at the cost of
            one more copy of the trained weights a kind.
        checkpoint_steps: Whether replayed steps recompute their activations in the backward pass.
        offload_activations: Whether activations wait for the backward pass in the CPU's memory, which saves that of
            the GPU at the cost of copying them twice; see :class:`~rlr.modules.offload.Offload`.
        max_bad_steps: After how many updates in a row without a finite gradient to stop.
        kl_weight: The weight of the divergence from the base model, which is then subtracted from the reward; see
            :class:`~rlr.estimators.divergence.Penalty`. The model must remember its base, as one with a LoRA does.
        kl_full: Whether the gradient of that divergence follows the states of the chain, too.
        log_kl_every: After how many updates each to log that divergence where ``kl_weight`` is 0, at the cost of one
            pass of the base model a step; 0 never does. A model that does not remember its base is left out.
        seed: Decides all noise.
    """

    def __init__(
        self,
        model: DiffusionModel,
        sampler: Sampler,
        reward: Reward,
        estimator: Estimator,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 1e-4,
        optimizer: OptimizerCallable | None = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
        warmup: int = 0,
        cooldown: int = 0,
        log_terms: bool = True,
        checkpoint_steps: bool = False,
        offload_activations: bool = False,
        max_bad_steps: int = 5,
        kl_weight: float = 0.0,
        kl_full: bool = False,
        log_kl_every: int = 25,
        seed: int = 0,
    ) -> None:
        super().__init__(Chain(model, sampler, checkpoint_steps), reward, seed)
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint holds the trained weights only; `on_load_checkpoint` is as strict
        self.estimator = estimator
        self._replays = estimator if isinstance(estimator, ReplayEstimator) else None
        self.lr, self.betas, self.weight_decay, self.optimizer = lr, betas, weight_decay, optimizer
        self.clip_norm, self.accumulate, self.warmup, self.cooldown = clip_norm, accumulate, warmup, cooldown
        self.log_terms, self.max_bad_steps = log_terms, max_bad_steps
        self.offload_activations = offload_activations
        if log_kl_every < 0 or (kl_full and not kl_weight):
            raise ValueError(
                "log_kl_every is at least 0 and kl_full goes with kl_weight > 0, and "
                f"log_kl_every={log_kl_every}, kl_full={kl_full}, kl_weight={kl_weight} were given"
            )
        self.penalty = Penalty(kl_weight, kl_full) if kl_weight else None
        self.log_kl_every = log_kl_every if model.has_reference else 0
        self.progress = Progress()
        self._round = Round()
        self._norm: Tensor | None = None
        self._bad: str | None = None
        self._overflow = False
        self._resumed: dict[str, Any] = {}
        self._check()

    def _check(self) -> None:
        estimator, reward = type(self.estimator).__name__, type(self.reward).__name__
        if self.accumulate < 1 or min(self.warmup, self.cooldown) < 0 or self.max_bad_steps < 1:
            raise ValueError(
                "accumulate and max_bad_steps are at least 1, warmup and cooldown at least 0, and "
                f"{self.accumulate}, {self.max_bad_steps}, {self.warmup} and {self.cooldown} were given"
            )
        if self.estimator.differentiable and not self.reward.differentiable:
            raise ValueError(
                f"{estimator} as configured backpropagates the reward, and {reward} has no gradient; use a "
                "differentiable reward, or an estimator of half- and zeroth-order terms alone, such as HalfOrder"
            )
        frames = self.chain.model.size.frames
        self.reward.check(clips=frames is not None)
        if frames is not None:
            self.reward.excerpt(frames, 0)  # a choice of frames that there are not fails here and not in training
        if self.penalty and self.penalty.full and self._replays:
            raise ValueError(
                f"kl_full needs roll-outs of the present weights, and {estimator} goes over older ones; set kl_full to false"
            )
        self.estimator.check(self.chain)
        if self.penalty:
            self.penalty.check(self.chain)

    def setup(self, stage: str) -> None:
        """Refuses to train a model without trainable weights; to sample from one is fine."""
        if stage == "fit" and not self.chain.model.trainable:
            raise ValueError(
                f"{type(self.chain.model).__name__} has no trainable weight; give it a LoRA, or unfreeze its weights"
            )
        if stage == "fit" and self._replays:
            self._check_end(self._replays.parts * self._replays.epochs)

    def _check_end(self, updates: int) -> None:
        """Warns of an end inside a round of so many updates."""
        if self.trainer.max_steps > 0 and self.trainer.max_steps % updates:
            warnings.warn(
                f"trainer.max_steps={self.trainer.max_steps} ends inside a round of {updates} updates, and a run continued "
                f"from there does not make up for the rest of it; set max_steps to a multiple of {updates}",
                stacklevel=2,
            )

    @property
    def weights(self) -> list[nn.Parameter]:
        r"""The trained weights :math:`\theta`."""
        return list(self.chain.model.trainable.values())

    # ------------------------------------------------------------------ training

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Rolls out, runs each term's backward, and steps on every ``accumulate``-th batch."""
        self._restore()
        meter, ledger = Meter(self.device), Ledger(self.weights, self.log_terms)
        with meter.phase("rollout"):
            trajectory = self._roll_out(batch.prompts, self.progress.samples)
        self._introduce(trajectory)
        rewards = self.objective.sign * self._take(trajectory, ledger, meter)
        self._note(ledger, rewards)
        self._count(len(batch.prompts), rewards)
        if self.progress.batches % self.accumulate == 0:
            ledger = self._learn(ledger, meter)
        self._log_divergence(trajectory, meter)
        self._log_step(rewards, ledger, meter)

    def _roll_out(self, prompts: Sequence[str], number: int) -> Trajectory:
        """Rolls out a batch whose first sample, on rank 0, has this number in the run."""
        first = number + self.global_rank * len(prompts)
        noises = self.chain.draw([spawn(self.seed, Stream.SAMPLE, first + i) for i in range(len(prompts))])
        return self.estimator.rollout(self.chain, prompts, noises, spawn(self.seed, Stream.ROLLOUT, number))

    def _introduce(self, trajectory: Trajectory) -> None:
        if self.progress.batches == 0:
            self.objective.introduce(trajectory.states[0], trajectory.prompts, self._excerpt)

    def _take(self, trajectory: Trajectory, ledger: Ledger, meter: Meter) -> Tensor:
        """Backpropagates a roll-out, or keeps it for the updates of its round; returns its objective."""
        if self._replays is None:
            return self._backward(self._terms(trajectory), ledger, meter, self.accumulate)
        with meter.phase("score"):
            rewards = score(self._objective(trajectory), trajectory.states[0])
        self._round.keep(self.progress.samples, trajectory, rewards)
        return rewards

    def _objective(self, trajectory: Trajectory) -> Callable[[Tensor], Tensor]:
        return self.objective.of(trajectory.prompts, self._excerpt)

    @property
    def _excerpt(self) -> int:
        # the same frames of clips on all ranks
        return spawn(self.seed, Stream.FRAMES, self.progress.samples)

    def _learn(self, ledger: Ledger, meter: Meter) -> Ledger:
        """Makes the update, or the updates, of the batches since the last; returns the ledger of the last one."""
        self.reward.settle()
        kept = self._round.take()
        if kept:
            self._share_failure()
        if kept and self._replays and self._bad is None:
            return self._replay(self._replays, kept, meter)
        # a round with a bad reward is one skipped update
        with meter.phase("optimizer"):
            self._update()
        return ledger

    def _replay(self, estimator: ReplayEstimator, kept: list[Experience], meter: Meter) -> Ledger:
        """Goes over a round, and steps after each part of it."""
        ledger = Ledger(self.weights, self.log_terms)
        for minibatches in estimator.updates(self.chain, kept, spawn(self.seed, Stream.ROUND, self.progress.samples)):
            if 0 <= self.trainer.max_steps <= self.trainer.global_step:
                break
            ledger = Ledger(self.weights, self.log_terms)
            for minibatch in minibatches:
                self._backward(self._replayed(estimator, minibatch), ledger, meter, minibatch.portions)
            self._note(ledger)
            with meter.phase("optimizer"):
                self._update()
        return ledger

    def _backward(self, terms: Iterator[Term], ledger: Ledger, meter: Meter, portions: float) -> Tensor:
        """Runs the backward of each term before asking for the next, and returns the roll-out's rewards."""
        rewards = None
        with self._unsynchronised():
            meter.start()
            while (term := self._next(terms)) is not None:
                ledger.enter(term, lambda loss: self.manual_backward(loss / portions))
                meter.stop(term.name)
                rewards = term.rewards
                del term  # its graph must be gone before the next one is built
                meter.start()
        if rewards is None:
            raise ValueError(f"{type(self.estimator).__name__} yielded no term; it must yield at least one a batch")
        return rewards

    def _next(self, terms: Iterator[Term]) -> Term | None:
        # a generator builds its next graph while it is asked, so this is where graphs are built
        with self._offloading():
            return next(terms, None)

    def _offloading(self) -> AbstractContextManager[object]:
        if not self.offload_activations:
            return nullcontext()
        return Offload(self.parameters(), pin=self.device.type == "cuda")

    def _terms(self, trajectory: Trajectory) -> Iterator[Term]:
        """The estimator's terms, and after them those of the penalty."""
        rewards = None
        for term in self.estimator.losses(self.chain, trajectory, self._objective(trajectory)):
            rewards = term.rewards
            yield term
            del term  # as in the estimator itself
        if self.penalty and rewards is not None:
            yield from self.penalty.terms(self.chain, trajectory, rewards)

    def _replayed(self, estimator: ReplayEstimator, minibatch: Minibatch) -> Iterator[Term]:
        """The estimator's terms of kept roll-outs, and those of the penalty."""
        yield from estimator.terms(self.chain, minibatch)
        if self.penalty:
            yield from self.penalty.terms(self.chain, minibatch.trajectory, minibatch.rewards)

    def _unsynchronised(self) -> AbstractContextManager[object]:
        # gradients are averaged over ranks once, before the update: which term is the last is known only afterwards
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _note(self, ledger: Ledger, rewards: Tensor | None = None) -> None:
        """Keeps the first failure since the last update; float16 may overflow until its scale is found."""
        overflow_allowed = self._scale > 1
        failure = ledger.failure(gradients=not overflow_allowed)
        if rewards is not None and not rewards.isfinite().all():
            reward = f"the reward {type(self.reward).__name__}"
            # an estimator may have dropped the sample, and its losses are finite
            failure = f"{failure} (neither is {reward})" if failure else f"{reward} is not finite"
        self._bad = self._bad or failure
        self._overflow = self._overflow or (overflow_allowed and failure is None and ledger.failure() is not None)

    def _count(self, samples: int, rewards: Tensor) -> None:
        progress, world = self.progress, self.trainer.world_size
        progress.batches += 1
        progress.samples += samples * world
        progress.reward_calls += self.objective.calls * world
        self.objective.calls = 0
        self.objective.watch(rewards)
        mean = rewards.mean().item()
        if math.isfinite(mean):
            progress.running = mean if progress.running is None else 0.9 * progress.running + 0.1 * mean

    @property
    def _scale(self) -> float:
        """What mixed precision in float16 multiplies losses by; 1 otherwise."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler.get_scale() if scaler is not None else 1.0

    def _update(self) -> None:
        optimizer: Any = self.optimizers()
        self._average_over_ranks()
        if self._bad is None:
            optimizer.step()
            self.progress.updates += 1
            if (self.warmup or self.cooldown) and not self._overflow:
                self.lr_schedulers().step()  # type: ignore[union-attr]
        optimizer.zero_grad()
        failure, self._bad, self._overflow = self._bad, None, False
        self._guard(failure)

    def _average_over_ranks(self) -> None:
        if self.trainer.world_size == 1:
            return
        strategy: Any = self.trainer.strategy
        for weight in self.weights:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            weight.grad = strategy.reduce(weight.grad, reduce_op="mean")
        self._share_failure()

    def _share_failure(self) -> None:
        if self.trainer.world_size == 1:
            return
        strategy: Any = self.trainer.strategy
        failures = strategy.reduce(torch.tensor(float(self._bad is not None), device=self.device), reduce_op="sum")
        if failures.item() and self._bad is None:
            self._bad = "a loss, gradient or reward on another process is not finite"

    def _guard(self, failure: str | None) -> None:
        """Counts updates skipped in a row, and stops after ``max_bad_steps`` of them."""
        if failure is None:
            self.progress.failures = 0
            return
        self.progress.failures += 1
        if self.progress.failures >= self.max_bad_steps:
            raise FloatingPointError(
                f"{failure}, as in {self.progress.failures} updates in a row, so training stops with the weights of the "
                "last good one; resume from the last checkpoint with a smaller lr, clip_norm or another precision"
            )
        warnings.warn(f"{failure}, so this update is skipped (batch {self.progress.batches})", stacklevel=2)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips; by now a scaled gradient has been unscaled."""
        gradients = [w.grad for w in self.weights if w.grad is not None]
        self._norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.weights, self.clip_norm, self._norm)

    def on_validation_model_zero_grad(self) -> None:
        """Leaves the gradients be: an update may be half accumulated when validation begins."""

    def configure_optimizers(self) -> Any:
        """AdamW (or what ``optimizer`` makes) on the trained weights alone, and the warm-up."""
        weights = self.weights
        made = self.optimizer(weights) if self.optimizer else self._adamw(weights)
        if not (self.warmup or self.cooldown):
            return made
        if self.cooldown and self.trainer.max_steps < 1:
            raise ValueError(f"cooldown={self.cooldown} counts from the end, and there is none; set trainer.max_steps")
        pace = Pace(self.warmup, self.cooldown, self.trainer.max_steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(made, pace)
        return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _adamw(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(weights, self.lr, betas=self.betas, weight_decay=self.weight_decay)

    def _log_divergence(self, trajectory: Trajectory, meter: Meter) -> None:
        """Logs how far the batch's paths are from the base model's, where that is known or due."""
        divergence = None
        if self.penalty:
            # of this batch's terms, not of earlier ones
            divergence, self.penalty.path = self.penalty.path, None
        elif self._divergence_due:
            with meter.phase("kl"):
                divergence = path_divergence(self.chain, trajectory).mean()
        if divergence is not None:
            self.log("kl/path", divergence, sync_dist=True, batch_size=len(trajectory.prompts))

    @property
    def _divergence_due(self) -> bool:
        return self.log_kl_every > 0 and self.progress.batches % (self.accumulate * self.log_kl_every) == 0

    def _log_step(self, rewards: Tensor, ledger: Ledger, meter: Meter) -> None:
        n = len(rewards)
        running = self.reward.rows(self.progress.running or 0.0)
        self.log_dict(running, prog_bar=True, logger=False, batch_size=n)
        spread = rewards.std() if n > 1 else rewards.new_zeros(())
        told = {"mean": rewards.mean(), "std": spread, **shown(self.reward, rewards, self.objective.parts or {})}
        self.log_dict({f"reward/{name}": value for name, value in told.items()}, sync_dist=True, batch_size=n)
        self.log_dict(dict(self._facts(ledger, meter)), batch_size=n)
        self.log_dict(self.estimator.metrics(), sync_dist=True, batch_size=n)

    def _facts(self, ledger: Ledger, meter: Meter) -> Iterator[tuple[str, Any]]:
        """What this rank's step was: gradients by kind before averaging over ranks, costs, counts."""
        yield from ledger.facts(self._scale)
        if self._norm is not None:
            yield "gradient/total", self._norm
        yield from meter.facts()
        yield "samples", float(self.progress.samples)
        yield "reward_calls", float(self.progress.reward_calls)

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps of the weights only the trained ones, and adds what else a resumed run needs."""
        trained = self.chain.model.trainable
        checkpoint["state_dict"] = {name: weight.detach() for name, weight in trained.items()}
        checkpoint[STATE] = {
            "progress": asdict(self.progress),
            "estimator": self.estimator.state_dict(),
            "reward": self.reward.memory(),
            "random": random_state(),
            "gradients": self._pending_gradients(),
            "bad": self._bad,
            "round": self._round.state(),
        }

    def _pending_gradients(self) -> dict[str, Tensor]:
        """The gradients of an update that is only half accumulated."""
        if self.progress.batches % self.accumulate == 0:
            return {}
        strategy: Any = self.trainer.strategy
        pending = {name: w.grad for name, w in self.chain.model.trainable.items() if w.grad is not None}
        return {name: strategy.reduce(grad.clone(), reduce_op="mean") for name, grad in pending.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint that is not of these weights, and takes up the rest of the state.

        Raises:
            ValueError: If a weight is missing, foreign, or of another shape.
        """
        if STATE not in checkpoint:
            raise ValueError(
                f"{self._origin} is a checkpoint of another module than {type(self).__name__}; give one of its own"
            )
        load_trained(self.chain.model, checkpoint["state_dict"], self._origin)
        checkpoint["state_dict"] = {}
        state = checkpoint[STATE]
        self.progress = Progress(**state["progress"])
        self.estimator.load_state_dict(state["estimator"])
        self.reward.recall(state["reward"])
        self._bad = state["bad"]
        self._resumed = state

    @property
    def _origin(self) -> str:
        """What a message calls the checkpoint that is being loaded."""
        return str(path) if self._trainer and (path := self._trainer.ckpt_path) else "the checkpoint"

    def _restore(self) -> None:
        """On the first step after resuming, restores what building the run has used up or dropped."""
        if not self._resumed:
            return
        state, self._resumed = self._resumed, {}
        set_random_state(state["random"])
        for name, gradient in state["gradients"].items():
            self.chain.model.trainable[name].grad = gradient.to(self.device)
        if self._replays:
            expected = self.progress.batches % self.accumulate
            self._round.restore(state.get("round", []), expected, self.device, self._roll_out)
