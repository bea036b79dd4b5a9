"""Bytes of passes through networks without content, against those of the same networks with content."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlr.analysis.footprint.fake import Fake
from rlr.analysis.footprint.passes import Passes, passes

SHAPE = (2, 4, 16, 16)


class Real(Fake):
    """Tensors with content, counted in the same way."""

    @contextmanager
    def active(self) -> Iterator[None]:
        yield


class Network(nn.Module):
    """A convolution, a norm, an attention and a trained map, in blocks that may be computed again."""

    def __init__(self, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.first = nn.Conv2d(4, 32, 3, padding=1).requires_grad_(False)
        self.norm = nn.GroupNorm(8, 32).requires_grad_(False)
        self.map = nn.Linear(32, 32)
        self.last = nn.Linear(32, 4).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self._block, x, use_reentrant=False) if self.recompute else self._block(x)

    def _block(self, x: Tensor) -> Tensor:
        h = nn.functional.silu(self.norm(self.first(x))).flatten(2).transpose(1, 2)
        q = self.map(h).unflatten(-1, (4, 8)).transpose(1, 2)
        out = nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)
        return self.last(out).transpose(1, 2).reshape(x.shape)


def counted(fake: Fake, network: Network, offload: bool = False) -> Passes:
    if not isinstance(fake, Real):
        fake.empty(network)
    stay = list(network.parameters()) if offload else None
    return passes(fake, network, SHAPE, [network.map.weight, network.map.bias], stay)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("offload", [False, True])
def test_bytes_are_those_of_tensors_with_content(recompute, offload):
    assert counted(Fake(), Network(recompute), offload) == counted(Real(), Network(recompute), offload)


def test_a_graph_in_the_input_keeps_more_and_one_that_is_computed_again_less():
    whole, again = counted(Fake(), Network()), counted(Fake(), Network(recompute=True))
    assert 0 < whole.weights.kept < whole.inputs.kept
    assert again.inputs.kept < whole.inputs.kept / 4
    assert again.inputs.backward > whole.inputs.backward
    assert whole.plain.kept == 0


def test_what_waits_in_the_memory_of_the_cpu_is_not_on_the_device():
    kept, waits = counted(Fake(), Network()), counted(Fake(), Network(), offload=True)
    assert kept.inputs.waiting == waits.inputs.kept == 0
    assert waits.inputs.waiting >= kept.inputs.kept


def test_autocast_halves_activations_and_normalizes_in_float32():
    network = Network().bfloat16()
    half = counted(Fake(torch.bfloat16), network)
    assert half.inputs.kept < counted(Fake(), Network()).inputs.kept

    with Fake(torch.bfloat16).active():
        normalized = nn.functional.group_norm(torch.empty(2, 8, 4, 4, dtype=torch.bfloat16), 2)
    assert normalized.dtype == torch.float32


def test_weights_lose_their_content_and_nothing_else():
    network = Network()
    network.tied = network.map
    Fake().empty(network)
    assert network.tied.weight is network.map.weight
    assert [w.requires_grad for w in network.parameters()] == [False] * 4 + [True, True] + [False] * 2


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (lambda x: bool((x > 2).all()), True),
        (lambda x: x.max().item(), 0.5),
        (lambda x: tuple(x[x.isfinite()].shape), (6,)),
        (lambda x: tuple(x.nonzero().shape), (6, 2)),
        (lambda x: torch.equal(x, x), True),
    ],
)
def test_questions_about_content_are_answered(question, answer):
    with Fake().active():
        assert question(torch.empty(2, 3)) == answer
