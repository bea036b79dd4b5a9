"""ViCLIP's two towers, of open_clip's blocks under its authors' names."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ViCLIPSizes:
    """The sizes of a ViCLIP; by default those of ViCLIP-L/14.

    Args:
        image: The side of a frame in pixels.
        patch: The side of a patch in pixels.
        frames: The number of frames.
        width: The width of the video tower.
        layers: Its blocks.
        heads: Its attention heads.
        text_width: The width of the text tower.
        text_layers: Its blocks.
        text_heads: Its attention heads.
        length: The number of tokens of a prompt, start and end included.
        dimension: The number of features.
        vocabulary: The number of tokens of the vocabulary.
    """

    image: int = 224
    patch: int = 14
    frames: int = 8
    width: int = 1024
    layers: int = 24
    heads: int = 16
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    length: int = 32
    dimension: int = 768
    vocabulary: int = 49408


class VideoTower(nn.Module):
    r"""A transformer over the patches of all frames, with positions in a frame and in time.

    Args:
        sizes: The sizes.
    """

    def __init__(self, sizes: ViCLIPSizes) -> None:
        # here, for it takes seconds to import
        from open_clip.transformer import LayerNorm, QuickGELU, Transformer

        super().__init__()
        width, kernel = sizes.width, (1, sizes.patch, sizes.patch)
        self.conv1 = nn.Conv3d(3, width, kernel, kernel, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty((sizes.image // sizes.patch) ** 2 + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.empty(1, sizes.frames, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, sizes.layers, sizes.heads, act_layer=QuickGELU)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, sizes.dimension))

    def forward(self, videos: Tensor) -> Tensor:
        r"""Returns the features of normalized videos :math:`(B, F, 3, s, s)`, with shape :math:`(B, D)`."""
        patches = self.conv1(videos.transpose(1, 2)).flatten(3).permute(0, 3, 2, 1)
        first, places = self.positional_embedding.split([1, patches.shape[1]])
        tokens = (patches + places[:, None] + self.temporal_positional_embedding).flatten(1, 2)
        start = (self.class_embedding + first).expand(len(videos), 1, -1)
        states = self.transformer(self.ln_pre(torch.cat([start, tokens], 1)))
        return cast(Tensor, self.ln_post(states[:, 0]) @ self.proj)


class TextTower(nn.Module):
    """CLIP's causal text transformer.

    Args:
        sizes: The sizes.
    """

    def __init__(self, sizes: ViCLIPSizes) -> None:
        from open_clip.transformer import LayerNorm, QuickGELU, Transformer

        super().__init__()
        width = sizes.text_width
        self.token_embedding = nn.Embedding(sizes.vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(sizes.length, width))
        self.transformer = Transformer(width, sizes.text_layers, sizes.text_heads, act_layer=QuickGELU)
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, sizes.dimension))

    def forward(self, tokens: Tensor) -> Tensor:
        r"""Returns the features of tokens :math:`(B, L)`, those at the first end token, with shape :math:`(B, D)`."""
        x = self.token_embedding(tokens) + self.positional_embedding
        length = tokens.shape[1]
        mask = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        states = self.ln_final(self.transformer(x, attn_mask=mask))
        # the end token has the largest number
        return cast(Tensor, states[torch.arange(len(tokens)), tokens.argmax(-1)] @ self.text_projection)


class ViCLIPNetwork(nn.Module):
    """Both towers under the names of the published file.

    Args:
        sizes: The sizes.
    """

    def __init__(self, sizes: ViCLIPSizes) -> None:
        super().__init__()
        self.vision_encoder = VideoTower(sizes)
        self.text_encoder = TextTower(sizes)
        # of the training, not read here
        self.temp = nn.Parameter(torch.empty(()))
