r"""Long vectors made short: a count sketch keeps inner products, which are all that accuracy is computed from.

A fixed hash maps coordinate :math:`i` to a bucket :math:`h(i)` and a sign :math:`s(i)`, and :math:`(Sx)_k = \sum_{h(i) = k} s(i)
x_i`. Over hashes, :math:`E[Sx \cdot Sy] = x \cdot y`, with a standard deviation of at most :math:`\sqrt{2 / m} \, \|x\| \|y\|` for
:math:`m` buckets.

References:
    | Finding Frequent Items in Data Streams (Charikar et al., 2002)
    | Feature Hashing for Large Scale Multitask Learning (Weinberger et al., 2009), Lemma 2
"""

import torch
from torch import Tensor

BUCKETS = 2**20
"""The number :math:`m` of buckets."""

CHUNK = 2**22
"""The number of coordinates that are hashed at a time."""


def sketched(x: Tensor, buckets: int = BUCKETS) -> Tensor:
    r"""Returns :math:`Sx` on the CPU, with shape :math:`(m)`, or a vector of at most :math:`m` coordinates as it is.

    Args:
        x: The vector, with shape :math:`(d)`.
        buckets: The number :math:`m`.
    """
    here = x.detach().cpu()
    if len(here) <= buckets:
        return here
    found = torch.zeros(buckets, dtype=here.dtype)
    for number, chunk in enumerate(here.split(CHUNK)):
        # the same hash for every vector
        generator = torch.Generator().manual_seed(number)
        bucket = torch.randint(buckets, (len(chunk),), generator=generator)
        sign = 2 * torch.randint(2, (len(chunk),), generator=generator) - 1
        found.index_add_(0, bucket, sign * chunk)
    return found
