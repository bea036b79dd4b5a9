"""Several reward servers score as one, whatever becomes of them."""

from contextlib import ExitStack
from threading import Event

import pytest
import torch

from rlr.estimators import HalfOrder
from rlr.rewards import Brightness, JPEGIncompressibility, Remote
from rlr.rewards.remote.protocol import Limits
from rlr.rewards.remote.server import Service, application
from tests.modules.toy import Hard, align, prompts, run, weights
from tests.rewards.server import Scripted, running, serving
from tests.rewards.test_config import instantiate

PIXELS = torch.rand(11, 3, 12, 8, generator=torch.Generator().manual_seed(0))
WORDS = [f"prompt {i}" for i in range(11)]


class Counting(JPEGIncompressibility):
    """Counts the samples that it scores, and may be held."""

    label = "Jpeg"

    def __init__(self):
        super().__init__()
        self.samples, self.held, self.asked = 0, Event(), Event()
        self.held.set()

    def forward(self, samples, words):
        self.asked.set()
        assert self.held.wait(10)
        self.samples += len(samples)
        return super().forward(samples, words)


class Breaking:
    """The server of a reward whose answers are cut off in the middle, from the n-th on, and whose health fails then."""

    def __init__(self, reward, n):
        self.app, self.n = application(Service(reward, torch.device("cpu"), Limits())), n

    async def __call__(self, scope, receive, send):
        self.n -= scope["path"] == "/score"
        if self.n >= 0:
            return await self.app(scope, receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": b'{"scores": [', "more_body": True})
        raise OSError("the power is off")


@pytest.fixture(scope="module")
def expected():
    with serving(JPEGIncompressibility()) as url:
        return Remote(url, batch=2)(PIXELS, WORDS)


def test_scores_are_those_of_one_server_and_all_take_part(expected):
    rewards = [Counting(), Counting(), Counting()]
    with ExitStack() as stack:
        reward = Remote([stack.enter_context(serving(one)) for one in rewards], batch=2)
        found = reward(PIXELS, WORDS)
    assert torch.equal(found, expected)
    assert sum(one.samples for one in rewards) == 11
    assert all(one.samples for one in rewards)


def test_a_batch_that_one_request_holds_is_shared_too():
    rewards = [Counting(), Counting()]
    with ExitStack() as stack:
        Remote([stack.enter_context(serving(one)) for one in rewards], batch=64)(PIXELS, WORDS)
    assert sorted(one.samples for one in rewards) == [5, 6]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_one_dies_in_the_middle_of_an_answer(n, expected):
    with serving(JPEGIncompressibility()) as good, running(Breaking(JPEGIncompressibility(), n)) as bad:
        reward = Remote([bad, good], batch=1, delay=0.01)
        with pytest.warns(UserWarning, match=f"the reward server {bad} failed: .*its samples go to the others"):
            assert torch.equal(reward(PIXELS, WORDS), expected)


def test_one_is_gone_between_two_batches(expected):
    with serving(JPEGIncompressibility()) as good:
        with serving(JPEGIncompressibility()) as bad:
            reward = Remote([bad, good], batch=2, delay=0.01)
            assert torch.equal(reward(PIXELS, WORDS), expected)
        with pytest.warns(UserWarning, match=f"{bad} failed: .*refused"):
            assert torch.equal(reward(PIXELS, WORDS), expected)
        assert torch.equal(reward(PIXELS, WORDS), expected)


def test_all_gone_is_an_error_that_names_them():
    with serving(Brightness()) as one, serving(Brightness()) as two:
        reward = Remote([one, two], retries=1, delay=0.01)
    with pytest.raises(
        ConnectionError, match=f"each of the 2 reward servers failed 2 times.*{one}: .*{two}: .*refused"
    ):
        reward(PIXELS, WORDS)
    with pytest.raises(ConnectionError, match="each of the 2 reward servers failed 2 times"):
        Remote([one, two], retries=1, delay=0.01)


def test_one_that_is_not_there_at_first_is_no_reason_to_stop(expected):
    with serving(JPEGIncompressibility()) as gone:
        pass
    with serving(JPEGIncompressibility()) as good:
        with pytest.warns(UserWarning, match=f"{gone} failed"):
            reward = Remote([gone, good], delay=0.01)
        assert torch.equal(reward(PIXELS, WORDS), expected)


def test_a_slow_server_scores_fewer_samples():
    """The slow one keeps its first samples until the fast one has scored all the others."""
    slow, fast = Counting(), Counting()
    slow.held.clear()

    class Releasing(Counting):
        def forward(self, samples, words):
            scores = super().forward(samples, words)
            if self.samples == 10:
                slow.held.set()
            return scores

    fast = Releasing()
    with serving(slow) as one, serving(fast) as two:
        assert Remote([one, two], batch=1)(PIXELS, WORDS).isfinite().all()
    assert (slow.samples, fast.samples) == (1, 10)


@pytest.mark.parametrize("fact", [{"label": "other"}, {"scales": {"x2": 2.0}}, {"higher_is_better": False}])
def test_two_rewards_are_no_pool(fact):
    facts = {"label": "x", "scales": {}, "higher_is_better": True}
    (name,) = fact
    with running(Scripted(facts=facts)) as one, running(Scripted(facts={**facts, **fact})) as two:
        with pytest.raises(ValueError, match=f"expected one reward, got the {name} .* from the first and .*") as error:
            Remote([one, two])
        sentence = str(error.value)
    for part in (one, two, repr(facts[name]), repr(fact[name])):
        assert part in sentence


@pytest.mark.parametrize("url", [[], ["http://127.0.0.1:1", "http://127.0.0.1:1/"]])
def test_no_address_and_an_address_twice(url):
    with pytest.raises(ValueError, match="expected an address, or a list of different addresses"):
        Remote(url)


def test_one_address_and_several_in_a_config():
    with serving(Brightness()) as one, serving(Brightness()) as two:
        for url, number in ((one, 1), ([one, two], 2)):
            reward = instantiate({"class_path": "Remote", "init_args": {"url": url, "batch": 2}})
            assert len(reward.servers.servers) == number
            assert reward(torch.ones(3, 3, 2, 2), ["a"] * 3).tolist() == [1] * 3


def test_training_on_a_pool_that_loses_a_server_is_training_on_one():
    with serving(Hard()) as url:
        alone = align(reward=Remote(url, batch=2), estimator=HalfOrder(2))
        run(alone, prompts(), 3)
        with running(Breaking(Hard(), 2)) as dying:
            pool = align(reward=Remote([dying, url], batch=2, delay=0.01), estimator=HalfOrder(2))
            with pytest.warns(UserWarning, match="its samples go to the others"):
                run(pool, prompts(), 3)
    assert torch.equal(weights(pool), weights(alone))
