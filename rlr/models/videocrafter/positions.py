r"""Learned relative positions in temporal attention, as VideoCrafter1 has them.

With tables :math:`R^k, R^v` of :math:`2M + 1` rows and :math:`r_{ij} = \mathrm{clip}(j - i, -M, M) + M`,

.. math:: P = \mathrm{softmax}_j \frac{q_i^\top (k_j + R^k_{r_{ij}})}{\sqrt d}, \qquad
    o_i = \sum_j P_{ij} \, (v_j + R^v_{r_{ij}})

References:
    | Self-Attention with Relative Position Representations (Shaw et al., 2018)
    | https://arxiv.org/abs/1803.02155
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor, nn


class RelativePositions(nn.Module):
    r"""One table :math:`R`, shared by the heads of an attention.

    Args:
        distance: The distance :math:`M` from which on positions no longer differ.
        width: Channels :math:`d` of a head.
    """

    def __init__(self, distance: int, width: int) -> None:
        super().__init__()
        self.embeddings_table = nn.Parameter(torch.empty(2 * distance + 1, width))
        nn.init.xavier_uniform_(self.embeddings_table)

    def forward(self, length: int) -> Tensor:
        r"""Returns :math:`R_{r_{ij}}` of ``length`` :math:`F` frames, with shape :math:`(F, F, d)`."""
        distance = len(self.embeddings_table) // 2
        place = torch.arange(length, device=self.embeddings_table.device)
        rows = (place[None, :] - place[:, None]).clamp(-distance, distance) + distance
        return self.embeddings_table[rows]


class RelativeAttention(nn.Module):
    r"""Self-attention over frames with relative positions, a processor of diffusers' ``Attention``.

    Args:
        distance: The distance :math:`M` from which on positions no longer differ.
        width: Channels :math:`d` of a head.
    """

    def __init__(self, distance: int, width: int) -> None:
        super().__init__()
        self.relative_position_k = RelativePositions(distance, width)
        self.relative_position_v = RelativePositions(distance, width)

    def forward(self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        r"""Returns the attention's output for tokens with shape :math:`(N, F, C)`, with that shape."""
        projections = (attn.to_q, attn.to_k, attn.to_v)
        q, k, v = (p(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for p in projections)
        length = hidden_states.shape[1]
        scores = q @ k.transpose(-1, -2) + torch.einsum("nhid,ijd->nhij", q, self.relative_position_k(length))
        weights = (scores * q.shape[-1] ** -0.5).softmax(-1)
        out = weights @ v + torch.einsum("nhij,ijd->nhid", weights, self.relative_position_v(length))
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def learn_positions(unet: nn.Module, distance: int) -> None:
    """Gives every temporal attention of a denoiser relative positions of its own."""
    for module in unet.modules():
        if isinstance(module, TransformerTemporalModel):
            (block,) = module.transformer_blocks
            for attention in (block.attn1, block.attn2):
                attention.set_processor(RelativeAttention(distance, attention.inner_dim // attention.heads))
