"""The head of AES and ImageReward, an affine map of an embedding."""

from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from rlr.io.weights import build

_LINEAR = (0, 2, 4, 6, 7)


class Head(nn.Module):
    r"""Five linear layers without an activation in between, from :math:`(B, D)` to :math:`(B)`: an affine map.

    The layers have the authors' names ``layers.0``, ``.2``, ``.4``, ``.6`` and ``.7``; the other numbers are dropouts in
    the authors' program.

    Args:
        widths: The six widths, 768, 1024, 128, 64, 16 and 1 in both rewards.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        linear = [nn.Linear(a, b) for a, b in pairwise(widths)]
        one, two, three, four, five = linear
        self.layers = nn.Sequential(one, nn.Identity(), two, nn.Identity(), three, nn.Identity(), four, five)

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.layers(embeddings).squeeze(-1)

    def folded(self) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`w`, with shape :math:`(D)`, and the number :math:`b` of the affine map, in float64."""
        layers = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        weight, bias = layers[0].weight.double(), layers[0].bias.double()
        for layer in layers[1:]:
            matrix = layer.weight.double()
            weight, bias = matrix @ weight, matrix @ bias + layer.bias.double()
        return weight[0], bias[0]


def build_head(state: dict[str, Tensor], source: Path) -> Head:
    """Returns the head with the weights and the widths of a state dict.

    Raises:
        ValueError: If the state dict lacks a layer of the head.
    """
    weights = [state.get(f"layers.{i}.weight") for i in _LINEAR]
    found = [weight for weight in weights if weight is not None and weight.ndim == 2]
    if len(found) != len(_LINEAR):
        raise ValueError(
            f"{source} lacks {len(_LINEAR) - len(found)} of the five layers of the head, layers.0 … layers.7; set the "
            "file that the authors published"
        )
    head: Head = build(lambda: Head([found[0].shape[1], *(weight.shape[0] for weight in found)]), state, source)
    return head
