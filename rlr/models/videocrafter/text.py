"""The text tower of OpenCLIP as VideoCrafter reads it: the states before the last block, normalized."""

import torch
from torch import Tensor, nn


class TextTower(nn.Module):
    r"""A causal transformer under open_clip's names; all but its last block are run.

    ``text_projection``, ``logit_scale`` and the last block are in its authors' files and take no part.

    Args:
        vocabulary: How many tokens there are.
        width: Width of the embedding.
        heads: Attention heads of a block.
        layers: Blocks, the unused last one included.
        length: Tokens of a prompt, padding included.
        mlp_ratio: Width of the hidden layer of a block by its own.
    """

    def __init__(
        self,
        vocabulary: int = 49408,
        width: int = 1024,
        heads: int = 16,
        layers: int = 24,
        length: int = 77,
        mlp_ratio: float = 4.0,
    ) -> None:
        # here, for it takes seconds to import
        from open_clip.transformer import LayerNorm, Transformer

        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(length, width))
        self.transformer = Transformer(width, layers, heads, mlp_ratio)
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor) -> Tensor:
        r"""Returns the embeddings of tokens :math:`(B, L)`, padding attended, with shape :math:`(B, L, D)`."""
        x = self.token_embedding(tokens) + self.positional_embedding
        length = tokens.shape[1]
        mask = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        for block in self.transformer.resblocks[:-1]:
            x = block(x, attn_mask=mask)
        return self.ln_final(x)
