"""The learning rate over a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    r"""The factor on the learning rate.

    In update :math:`u` it is :math:`\min\bigl(1, \frac{u + 1}{w}, \frac{U - u}{\min(c, U) + 1}\bigr)`.

    Args:
        warmup: The updates :math:`w` over which it rises; 0 for none.
        cooldown: The updates :math:`c` at the end over which it falls; 0 for none.
        updates: The updates :math:`U` of the run; without a cooldown it is not asked for.
    """

    warmup: int
    cooldown: int
    updates: int

    def __call__(self, update: int) -> float:
        """Returns the factor of an update, counted from 0, in [0, 1]."""
        rise = (update + 1) / self.warmup if self.warmup else 1.0
        fall = (self.updates - update) / (min(self.cooldown, self.updates) + 1) if self.cooldown else 1.0
        return max(0.0, min(1.0, rise, fall))
