"""A remote reward is the local one on rounded pixels, outlives a fault that passes, and makes no score up."""

import pickle
import socket
from types import MappingProxyType

import pytest
import torch

from rlr.estimators import RLR, HalfOrder, RunningMean, Zero, ZerothOrder
from rlr.rewards import AllFrames, Brightness, FrameReward, JPEGCompressibility, JPEGIncompressibility, Remote
from rlr.rewards.remote import dispatcher
from tests.modules.toy import Hard, align, prompts, run, weights
from tests.rewards.server import Scripted, running, serving


def random_pixels(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def rounded(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels * 255).round() / 255


@pytest.fixture
def waits(monkeypatch):
    """The delays that would have been waited for."""
    seconds: list[float] = []
    monkeypatch.setattr(dispatcher, "sleep", seconds.append)
    return seconds


# ---------------------------------------------------------------- the same reward


@pytest.mark.parametrize("reward", [Brightness(), JPEGIncompressibility(), JPEGCompressibility(50)])
def test_scores_are_those_of_the_local_reward(reward):
    pixels, words = random_pixels(5, 3, 20, 12), [f"{i} ünï" for i in range(5)]
    with serving(reward) as url:
        scores = Remote(url, batch=2)(pixels, words)
    assert torch.equal(scores, reward(rounded(pixels), words))
    assert scores.unique().numel() > 1


def test_so_are_those_of_videos():
    reward, pixels = FrameReward(JPEGIncompressibility(), AllFrames()), random_pixels(3, 4, 3, 8, 16)
    with serving(reward) as url:
        scores = Remote(url, batch=2)(pixels, ["a", "b", "c"])
    assert torch.equal(scores, reward(rounded(pixels), ["a", "b", "c"]))


def test_each_sample_is_sent_with_its_prompt_in_requests_of_a_batch():
    app = Scripted((200, {"scores": [1, 2]}), (200, {"scores": [3, 4]}), (200, {"scores": [5]}))
    with running(app) as url:
        scores = Remote(url, batch=2)(random_pixels(5, 3, 2, 2), list("abcde"))
    assert scores.tolist() == [1, 2, 3, 4, 5]
    assert [request["prompts"] for request in app.requests] == [["a", "b"], ["c", "d"], ["e"]]
    assert [len(request["samples"]) for request in app.requests] == [2, 2, 1]


def test_the_server_says_what_the_reward_is():
    class Cost(Brightness):
        higher_is_better = False
        scales = MappingProxyType({"x100": 100.0})
        label = "Cost 2.1"

    with serving(Cost()) as url:
        reward = Remote(url)
    assert (reward.label, reward.scales, reward.higher_is_better) == ("Cost 2.1", {"x100": 100.0}, False)
    assert not reward.differentiable


def test_it_survives_being_sent_to_another_process():
    with serving(Brightness()) as url:
        reward = pickle.loads(pickle.dumps(Remote(url)))
        assert reward(torch.ones(1, 3, 2, 2), ["a"]).tolist() == [1]


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_fault_that_passes_is_waited_for(status, waits):
    app = Scripted(*[(status, {"error": "later"})] * 3, (200, {"scores": [7]}))
    with running(app) as url:
        scores = Remote(url, retries=3, delay=0.5)(random_pixels(1, 3, 2, 2), ["a"])
    assert scores.tolist() == [7]
    assert waits == [0.5, 1, 2]
    assert all(request == app.requests[0] for request in app.requests)


def test_one_that_stays_is_stated_with_its_last_reason(waits):
    with running(Scripted((503, {"error": "the GPU\nis lost"}))) as url:
        reward = Remote(url, retries=2)
        with pytest.raises(ConnectionError, match=r"failed 3 times, at last with: status 503, the GPU is lost; check"):
            reward(random_pixels(1, 3, 2, 2), ["a"])
    assert waits == [1, 2]


def test_a_server_that_is_not_there(waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=r"failed 6 times.*refused; check that it runs"):
        Remote(url)
    assert waits == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_is_final_and_says_why(status, waits):
    app = Scripted((status, {"error": "no caption of this world"}))
    with running(app) as url:
        reward = Remote(url)
        with pytest.raises(ValueError, match=rf"refuses with status {status}: no caption of this world"):
            reward(random_pixels(1, 3, 2, 2), ["a"])
    assert (len(app.requests), waits) == (1, [])


def test_the_sentence_of_a_reward_comes_through(waits):
    class Picky(Brightness):
        def forward(self, samples, prompts):
            raise ValueError("the prompt 'a' is too short;\nwrite more")

    with (
        serving(Picky()) as url,
        pytest.raises(ValueError, match=r"422: the reward Picky: the prompt 'a' is too short; write more"),
    ):
        Remote(url)(random_pixels(1, 3, 2, 2), ["a"])
    assert waits == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"scores": [1.0]}, "got 1 scores for 2 samples"),
        ({"scores": [1.0, 2.0, 3.0]}, "got 3 scores for 2 samples"),
        ({"score": [1.0, 2.0]}, "got no scores for 2 samples"),
        ({"scores": 1.0}, "got no scores for 2 samples"),
        ([1.0, 2.0], "expected a JSON object, got another answer"),
        (b"<html>", "expected a JSON object, got another answer"),
        (b"[" * 100_000, "expected a JSON object, got another answer"),
        (b'{"scores": [1.0, 1' + 5000 * b"0" + b"]}", "expected a JSON object, got another answer"),
        (b" " * (2**24 + 1), "expected an answer of at most 16777216 bytes"),
    ],
)
def test_an_answer_that_does_not_fit_is_an_error(answer, message):
    with running(Scripted((200, answer))) as url:
        reward = Remote(url)
        with pytest.raises(ValueError, match=message):
            reward(random_pixels(2, 3, 2, 2), ["a", "b"])


@pytest.mark.parametrize(
    "score",
    [b"null", b"NaN", b"Infinity", b"-Infinity", b"1e400", b"1e60", b'"1.0"', b"true", b"[1]", b"1" + 400 * b"0"],
)
def test_what_is_no_finite_number_is_not_a_score(score):
    with running(Scripted((200, b'{"scores": [0.5, ' + score + b"]}"))) as url:
        scores = Remote(url)(random_pixels(2, 3, 2, 2), ["a", "b"])
    assert scores[0] == 0.5
    assert scores[1].isnan()


def test_a_score_that_is_not_finite_on_the_server_is_none_here():
    class Half(Brightness):
        def forward(self, samples, prompts):
            return super().forward(samples, prompts) / torch.tensor([1.0, 0.0])

    with serving(Half()) as url:
        scores = Remote(url)(torch.ones(2, 3, 2, 2), ["a", "b"])
    assert (scores[0].item(), scores.isnan().tolist()) == (1, [False, True])


def test_a_picture_that_is_not_finite_has_no_score():
    pixels = random_pixels(3, 3, 2, 2)
    pixels[1, 0, 0, 0], pixels[2, 1, 1, 1] = torch.nan, 1
    with serving(Brightness()) as url:
        assert Remote(url)(pixels, list("abc")).isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("pixels", "words", "message"),
    [
        (torch.zeros(2, 3, 2, 2), ["a"], "2, 3, 2, 2.*and 1 prompts"),
        (torch.zeros(2, 1, 2, 2), ["a", "b"], r"expected samples of shape \(B, 3, H, W\)"),
        (torch.full((1, 3, 2, 2), -1.0), ["a"], r"outside of \[0, 1\]"),
    ],
)
def test_what_is_no_sample_is_not_sent(pixels, words, message):
    app = Scripted((200, {"scores": [0]}))
    with running(app) as url, pytest.raises(ValueError, match=message):
        Remote(url)(pixels, words)
    assert app.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "file:///etc/passwd"}, "begins with http"),
        ({"url": "127.0.0.1:8000"}, "begins with http"),
        ({"batch": 0}, "expected at least 1, got 0"),
        ({"url": "http://"}, "names a host"),
        ({"url": "http://127.0.0.1:99999"}, "expected an address"),
        ({"timeout": 0}, "timeout > 0"),
        ({"retries": -1}, "retries >= 0"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Remote(**{"url": "http://127.0.0.1:1", **settings})


def test_another_server_is_no_reward_server():
    with (
        running(Scripted(facts={"label": "x", "scales": {}})) as url,
        pytest.raises(ValueError, match="expected the higher_is_better of a reward, got none"),
    ):
        Remote(url)


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        ({"label": 5}, "expected a string of 1 to 100 printable characters as label, got 5"),
        ({"label": "\ud800"}, "expected a string .* as label"),
        ({"label": "\x1b[2J"}, "expected a string .* as label"),
        ({"label": "x" * 101}, "expected a string .* as label"),
        ({"scales": [1]}, r"expected finite numbers by name as scales, got \[1\]"),
        ({"scales": {"x100": "100"}}, "expected finite numbers by name as scales"),
        ({"scales": {"x100": float("nan")}}, "expected finite numbers by name as scales"),
        ({"scales": {"x100": 10**400}}, "expected finite numbers by name as scales"),
        ({"higher_is_better": "yes"}, "expected true or false as higher_is_better, got 'yes'"),
    ],
)
def test_facts_that_are_not_those_of_a_reward_are_one_sentence(fact, message):
    facts = {"label": "x", "scales": {}, "higher_is_better": True, **fact}
    with running(Scripted(facts=facts)) as url, pytest.raises(ValueError, match=message) as error:
        Remote(url)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"error": "\\u001b[2J\\n' + 10_000 * b"a" + b'"}', b"<html>"])
def test_the_words_of_a_hostile_refusal_are_short_and_printable(body):
    with running(Scripted((400, body))) as url:
        reward = Remote(url)
        with pytest.raises(ValueError, match="refuses with status 400") as error:
            reward(random_pixels(1, 3, 2, 2), ["a"])
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700


# ---------------------------------------------------------------- in training


class Rounded(Hard):
    """What a server of Hard scores."""

    def forward(self, samples, prompts):
        return super().forward(rounded(samples), prompts)


class Failing(Hard):
    """Has no score for the second sample in the calls whose numbers are given."""

    def __init__(self, *calls: int) -> None:
        super().__init__()
        self.calls, self.n = calls, 0

    def forward(self, samples, prompts):
        scores = super().forward(samples, prompts)
        self.n += 1
        if self.n in self.calls:
            scores[1] = torch.nan
        return scores


ESTIMATORS = {
    "leave one out": lambda: HalfOrder(2),
    "no baseline": lambda: HalfOrder(2, baseline=Zero()),
    "running mean": lambda: HalfOrder(2, baseline=RunningMean()),
    "rlr": lambda: RLR(2, steps=0),
    "one point": lambda: RLR(2, steps=0, zeroth=ZerothOrder(antithetic=False)),
}


def test_training_with_it_is_training_with_the_local_reward():
    local = align(reward=Rounded(), estimator=HalfOrder(2))
    run(local, prompts(), 3)
    with serving(Hard()) as url:
        far = align(reward=Remote(url, batch=3), estimator=HalfOrder(2))
        run(far, prompts(), 3)
    assert torch.equal(weights(far), weights(local))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_one_missing_score_skips_the_whole_update_and_no_more(name):
    """Neither does it leak to samples of its batch, whose baselines hold it, nor to later updates."""
    with serving(Failing(1)) as url:
        module = align(reward=Remote(url), estimator=ESTIMATORS[name]())
        before = weights(module)
        with pytest.warns(
            UserWarning,
            match=r"scores that are not finite for 1 of 4 samples.*this update is skipped",
        ):
            trainer = run(module, prompts(4), 1)
        assert (trainer.global_step, module.updater.failures) == (1, 0)
    assert module.progress.batches == 2
    assert not torch.equal(weights(module), before)
    assert weights(module).isfinite().all()
    assert torch.tensor(module.progress.running).isfinite()


def test_a_missing_score_of_a_perturbed_rollout_skips_it_too():
    with serving(Failing(2)) as url:
        module = align(reward=Remote(url), estimator=ZerothOrder())
        with pytest.warns(UserWarning, match=r"not finite.*this update is skipped"):
            run(module, prompts(4), 1)
    assert weights(module).isfinite().all()


def test_an_estimator_that_drops_the_sample_is_stopped_too():
    """The rewards themselves are looked at, not only what an estimator makes of them."""

    class Forgiving(Zero):
        def advantages(self, rewards):
            return rewards.nan_to_num(0)

    with serving(Failing(1)) as url:
        module = align(reward=Remote(url), estimator=HalfOrder(2, baseline=Forgiving()))
        with pytest.warns(
            UserWarning,
            match=r"scores that are not finite for 1 of 4 samples.*this update is skipped",
        ):
            run(module, prompts(4), 1)


def test_training_stops_when_scores_stay_away():
    with serving(Failing(*range(1, 99))) as url:
        module = align(reward=Remote(url), estimator=HalfOrder(2), max_bad_steps=3)
        before = weights(module)
        with (
            pytest.warns(UserWarning, match="skipped"),
            pytest.raises(
                FloatingPointError,
                match=r"reward Failing returned .* not finite.*this is update 3 in a row",
            ),
        ):
            run(module, prompts(4), 9)
    assert torch.equal(weights(module), before)
