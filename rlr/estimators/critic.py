r"""A critic: a small network that learns the expected reward of a sample from the run's own rollouts.

.. math:: c(x_0, p) = m + s \, f_\phi\bigl(u(x_0, p)\bigr)

with features :math:`u` of the sample and its prompt, and :math:`m, s` the mean and the standard deviation of the rewards so far. It
gives a reward without gradient a slope. Its weights :math:`\phi` are fitted to earlier rollouts alone,
so the control variate stays unbiased.
"""

from collections import deque
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlr.distributed import gather
from rlr.estimators.critic_features import CriticFeatures
from rlr.estimators.values import Value
from rlr.rollout import Rollout


class Critic(Value):
    r"""A multilayer perceptron on features, trained online with AdamW on the squared error.

    Until it has learned from a rollout it is 0.

    Args:
        features: The features :math:`u`: :class:`~rlr.estimators.critic_features.ClipFeatures` of a CLIP model such as PickScore,
            or :class:`~rlr.estimators.critic_features.LatentFeatures`.
        hidden: The width of the hidden layer.
        lr: The learning rate.
        steps: The number of its updates after each rollout.
        batch: The number of samples of each of these updates.
        memory: The number of rollouts that are kept.
        weight_decay: The weight decay.
        seed: Decides the first weights and the order of the samples; the same on all ranks.

    Raises:
        ValueError: If an argument is not positive.
    """

    def __init__(
        self,
        features: CriticFeatures,
        hidden: int = 64,
        lr: float = 1e-3,
        steps: int = 20,
        batch: int = 128,
        memory: int = 128,
        weight_decay: float = 1e-2,
        seed: int = 0,
    ) -> None:
        for name, value in (("hidden", hidden), ("lr", lr), ("steps", steps), ("batch", batch), ("memory", memory)):
            if not value > 0:
                raise ValueError(f"Critic.{name}: expected a positive number, got {value}")
        self.features = features
        self.steps = steps
        self.batch = batch
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Sequential(nn.Linear(features.dimension, hidden), nn.SiLU(), nn.Linear(hidden, 1)).float()
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr, weight_decay=weight_decay)
        self.seen: deque[Tensor] = deque(maxlen=memory)

    def of(self, rollout: Rollout) -> Callable[[Tensor], Tensor]:
        if not self.seen:
            return lambda x: 0 * x.flatten(1).sum(1)
        mean, std = self._moments()
        # a copy, which does not learn from the rollout that it is used on
        head = deepcopy(self.head).requires_grad_(False)
        return lambda x: mean + std * _of(head, self.features.of(rollout, x))

    @torch.no_grad()
    def learn(self, rollout: Rollout) -> None:
        inputs = self.features.of(rollout, rollout.trajectory.states[0])
        rows = gather(torch.cat([inputs, rollout.rewards.to(inputs).unsqueeze(1)], 1)).flatten(0, 1).cpu()
        self.seen.append(rows[rows.isfinite().all(1)])
        with torch.enable_grad():
            self._fit()

    def _fit(self) -> None:
        rows, (mean, std) = torch.cat(list(self.seen)), self._moments()
        for _ in range(self.steps):
            chosen = rows[torch.randint(len(rows), (self.batch,), generator=self.generator)]
            inputs, rewards = chosen[:, :-1], chosen[:, -1]
            loss = F.mse_loss(_of(self.head, inputs), (rewards - mean) / std)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.optimizer.zero_grad()

    def _moments(self) -> tuple[float, float]:
        rewards = torch.cat(list(self.seen))[:, -1].double()
        return rewards.mean().item(), rewards.std(correction=0).clamp_min(1e-6).item()

    def state_dict(self) -> dict[str, object]:
        return {
            "head": self.head.state_dict(),
            # a copy: the state of the optimizer changes in place
            "optimizer": deepcopy(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "seen": list(self.seen),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.head.load_state_dict(state["head"])  # type: ignore[arg-type]
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        self.generator.set_state(state["generator"])  # type: ignore[arg-type]
        self.seen.clear()
        self.seen.extend(state["seen"])  # type: ignore[arg-type]


def _of(head: nn.Module, inputs: Tensor) -> Tensor:
    return head.to(inputs.device)(inputs).squeeze(1)
