import torch
from torch import nn

from rlr.analysis.measure import peak_bytes
from rlr.analysis.offload_stats import Bytes, CountedOffload

CPU = torch.device("cpu")
N = 100_000


def test_gradients_are_the_same_and_bytes_come_back() -> None:
    layer = nn.Linear(8, 8)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))

    def gradient(waiting: Bytes | None) -> torch.Tensor:
        layer.zero_grad()
        if waiting is None:
            loss = layer(x).sin().exp().sum()
        else:
            with CountedOffload(layer.parameters(), waiting):
                loss = layer(x).sin().exp().sum()
            assert waiting.alive > 0
        loss.backward()
        return layer.weight.grad.clone()

    waiting = Bytes()
    assert torch.equal(gradient(waiting), gradient(None))
    # the input of the layer, of the sine, and the result of the exponential; the weight stays
    assert waiting.peak == 3 * 4 * 8 * 4
    assert waiting.alive == 0


def test_what_waits_is_not_on_the_device() -> None:
    weight = torch.zeros(N, requires_grad=True)

    def work() -> None:
        x = weight + 1
        for _ in range(6):
            x = x.exp()
        x.sum().backward()
        weight.grad = None

    def offloaded() -> None:
        with CountedOffload([weight], waiting):
            x = weight + 1
            for _ in range(6):
                x = x.exp()
            loss = x.sum()
        del x
        loss.backward()
        weight.grad = None

    waiting = Bytes()
    least = peak_bytes(offloaded, CPU)
    assert waiting.peak == 6 * 4 * N
    # two neighbors, a gradient, and numbers
    assert least < 4 * 4 * N
    assert peak_bytes(work, CPU) >= 6 * 4 * N


def test_half_precision_waits_to_the_bit() -> None:
    x = torch.randn(5, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with CountedOffload([], Bytes()):
        y = x.exp().sum()
    y.backward()
    assert torch.equal(x.grad, x.detach().exp())
