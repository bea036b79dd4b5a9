"""The memory of a server does not grow with the requests that it answers."""

import gc
import http.client
import json
import os

import psutil
import pytest
import torch

from rlr.rewards import Brightness
from rlr.rewards.remote.protocol import Limits, pack
from rlr.rewards.remote.server import Service, application
from tests.rewards.server import running

BOUND = 12 * 2**20
"""The most bytes by which the process may grow after the first requests."""


class Leaking(Service):
    """Keeps every request, as a list of jobs that is never emptied would."""

    kept: list[bytes]

    def score(self, body):
        self.kept.append(bytes(body))
        return super().score(body)


def growth(service: Service, requests: int, warm: int) -> int:
    """Returns by how many bytes this process, client and server, grows in some requests, of which a seventh is refused."""
    noise = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    good = json.dumps(pack(noise, list("abcd")))
    bad = good.replace('"d"', "5")
    with running(application(service)) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        begin = 0
        for number in range(warm + requests):
            if number == warm:
                begin = resident()
            body, expected = (bad, 400) if number % 7 == 6 else (good, 200)
            connection.request("POST", "/score", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (expected, True)
            if number % 50 == 49:
                # a client that leaves, and another that comes
                connection.close()
        connection.close()
        return resident() - begin


def resident() -> int:
    gc.collect()
    return psutil.Process(os.getpid()).memory_info().rss


def service(kind: type[Service] = Service) -> Service:
    return kind(Brightness(), torch.device("cpu"), Limits())


def test_memory_is_flat():
    assert growth(service(), 400, warm=100) < BOUND


def test_a_leak_would_be_found():
    leaking = service(Leaking)
    leaking.kept = []
    # requests of 52 MB, of which a part goes where the process has had memory before
    assert growth(leaking, 800, warm=100) > 2 * BOUND


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_requests():
    assert growth(service(), 10_000, warm=500) < BOUND
