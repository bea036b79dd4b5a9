r"""Gaussian transition kernels :math:`\mathcal{N}(\mu, \sigma^2 I)`.

A step of a reverse diffusion chain is used in two ways: :meth:`Gaussian.sample` gives the pathwise (first-order) gradient,
:meth:`Gaussian.log_prob` the likelihood ratio (half order).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    r"""An isotropic Gaussian :math:`\mathcal{N}(\mu, \sigma^2 I)` over latents.

    Args:
        mean: The mean :math:`\mu`, with shape :math:`(B, *)`.
        std: The standard deviation :math:`\sigma \geq 0`, one number for all samples and dimensions.
    """

    mean: Tensor
    std: float

    def sample(self, noise: Tensor) -> Tensor:
        r"""Returns :math:`\mu + \sigma z` for the noise :math:`z`, with shape :math:`(B, *)`."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Returns :math:`\log \mathcal{N}(x \mid \mu, \sigma^2 I)`, **summed** over the latent's dimensions.

        The sum, in contrast to the mean of the published DDPO code, is on the scale of a first-order term. It is computed in at
        least float32 under any autocast, because it adds thousands of small terms.

        Args:
            x: The points, with shape :math:`(B, *)`.

        Returns:
            The log-densities, with shape :math:`(B)`.

        Raises:
            ValueError: If :math:`\sigma = 0`.
        """
        z = self._standardize(x)
        return (-0.5 * z**2 - math.log(self.std) - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def divergence(self, mean: Tensor) -> Tensor:
        r"""Returns :math:`\mathrm{KL}\bigl(\mathcal{N}(\mu, \sigma^2 I) \,\|\, \mathcal{N}(\mu', \sigma^2 I)\bigr)
        = \frac{|\mu - \mu'|^2}{2 \sigma^2}`, summed over the latent's dimensions like the log-density.

        Args:
            mean: The other means :math:`\mu'`, with shape :math:`(B, *)`.

        Returns:
            The divergences, with shape :math:`(B)`.

        Raises:
            ValueError: If :math:`\sigma = 0`.
        """
        return (0.5 * self._standardize(mean) ** 2).flatten(1).sum(1)

    def _standardize(self, x: Tensor) -> Tensor:
        if self.std == 0:
            raise ValueError(
                "a deterministic transition (σ = 0) has no density; use a sampler with eta > 0, or first order"
            )
        dtype = torch.promote_types(x.dtype, torch.float32)
        return (x.to(dtype) - self.mean.to(dtype)) / self.std
