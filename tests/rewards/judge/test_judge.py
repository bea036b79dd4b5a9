"""A judge is asked once about each image, outlives a fault that passes, and its key stays secret."""

import base64
import io
import json
import math
import pickle
import socket
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from rlr.io import http
from rlr.rewards import AxisScores, FinalScore, Scored, VideoAxisScores, VLMJudge, YesNo
from tests.data.completions import Completions, completion, running


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The delays that would have been waited for."""
    seconds: list[float] = []
    monkeypatch.setattr(http, "sleep", seconds.append)
    return seconds


def decoded(part) -> np.ndarray:
    """The image in a part of a message."""
    scheme, _, data = part["image_url"]["url"].partition(",")
    assert scheme == "data:image/png;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def bright(content):
    """A model that scores an image by its brightness."""
    return completion(f"It is fine.\nFinal Score: {1 + 4 * decoded(content[0]).mean() / 255:.4f}")


def gray(*levels: float, size: int = 8) -> torch.Tensor:
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, size, size)


def prompts_of(app: Completions) -> list[str]:
    """The prompts of the requests, in the order of the alphabet: threads send them in any order."""
    return sorted(content[-1]["text"].rpartition("Caption: ")[2] for content in app.asked)


# ---------------------------------------------------------------- asking


def test_each_image_is_scored_for_its_own_prompt():
    app = Completions((200, bright))
    with running(app) as url:
        judge = VLMJudge(f"{url}/v1/", "unified", concurrency=3)
        scores = judge(gray(0.0, 1.0, 0.5), ["a cat", "a {prompt} dog", "猫"])
    assert scores.tolist() == pytest.approx([0.2, 1.0, (1 + 4 * 128 / 255) / 5], abs=1e-4)
    assert prompts_of(app) == ["[a cat]", "[a {prompt} dog]", "[猫]"]
    assert set(app.paths) == {"/v1/chat/completions"}
    (request, *_) = app.requests
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("unified", 0, 1024)
    # the image, and then the question
    assert [part["type"] for part in request["messages"][0]["content"]] == ["image_url", "text"]


def test_an_image_that_a_batch_repeats_is_asked_about_once():
    app = Completions((200, bright))
    with running(app) as url:
        scores = VLMJudge(url, "m")(gray(0.5, 0.5, 0.5), ["a cat", "a cat", "a dog"])
    assert len(app.requests) == 2
    assert len(set(scores.tolist())) == 1


def test_images_are_resized_and_videos_are_evenly_spaced_frames():
    app = Completions((200, completion("Final Score: 3")))
    video = torch.arange(10).view(1, 10, 1, 1, 1).expand(1, 10, 3, 8, 8) / 255
    with running(app) as url:
        VLMJudge(url, "m", size=12)(gray(0.5), ["a cat"])
        VLMJudge(url, "m", frames=4)(video, ["a cat"])
        VLMJudge(url, "m", frames=40)(video[:, :3], ["a cat"])
    one, few, whole = ([decoded(part) for part in content[:-1]] for content in app.asked)
    assert [image.shape for image in one] == [(12, 12, 3)]
    assert [image[0, 0, 0] for image in few] == [0, 2, 5, 7]
    assert [image[0, 0, 0] for image in whole] == [0, 1, 2]


def test_no_more_requests_than_allowed_are_under_way():
    lock, inside, most = threading.Lock(), 0, 0
    together = threading.Barrier(3, timeout=20)

    class Counting(VLMJudge):
        def _ask(self, item):
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            # three requests meet: fewer at a time would wait here until the barrier breaks
            together.wait()
            with lock:
                inside -= 1
            return 0.5

    scores = Counting("http://127.0.0.1:9", "m", concurrency=3)(torch.rand(9, 3, 4, 4), ["a cat"] * 9)
    assert scores.tolist() == [0.5] * 9
    assert most == 3


# ---------------------------------------------------------------- the cache


def test_a_score_is_kept_whatever_the_address(tmp_path):
    cache = str(tmp_path / "folder" / "scores.jsonl")
    app = Completions((200, bright))
    with running(app) as url:
        first = VLMJudge(url, "m", cache=cache)(gray(0.0, 1.0), ["a cat", "a dog"])
        VLMJudge(url, "m", cache=cache)(gray(0.0, 0.5), ["a cat", "a cat"])
    assert len(app.requests) == 3
    # the endpoint is gone
    again = VLMJudge("http://127.0.0.1:9", "m", cache=cache, retries=0)(gray(1.0, 0.0), ["a dog", "a cat"])
    assert torch.equal(again, first.flip(0))


@pytest.mark.parametrize(
    "other",
    [{"model": "n"}, {"question": AxisScores()}, {"question": FinalScore(tokens=9)}, {"size": 4}],
    ids=["model", "question", "settings", "size"],
)
def test_another_model_question_or_size_is_asked_again(tmp_path, other):
    cache = str(tmp_path / "scores.jsonl")
    both = completion("Final Score: 3\nAlignment Score: 3\nCoherence Score: 3\nStyle Score: 3")
    app = Completions((200, both))
    with running(app) as url:
        VLMJudge(url, "m", cache=cache)(gray(0.5), ["a cat"])
        VLMJudge(**{"url": url, "model": "m", "cache": cache} | other)(gray(0.5), ["a cat"])
        VLMJudge(url, "m", cache=cache)(gray(0.5), ["a cat"])
    assert len(app.requests) == 2


def test_weights_decide_how_an_answer_is_read_and_so_its_place_in_the_cache(tmp_path):
    cache = str(tmp_path / "scores.jsonl")
    app = Completions((200, completion("Alignment Score (1-5): 5\nCoherence Score (1-5): 1\nStyle Score (1-5): 1")))
    with running(app) as url:
        for weights, expected in (({"Alignment": 1.0}, 1.0), ({"Style": 1.0}, 0.2)):
            assert VLMJudge(url, "m", AxisScores(weights), cache)(gray(0.5), ["a cat"]).item() == pytest.approx(
                expected
            )


# ---------------------------------------------------------------- faults


def lines(**tokens: float) -> dict:
    """An answer with the probabilities of its first token."""
    first = [{"token": token, "logprob": math.log(p)} for token, p in tokens.items()]
    return {"choices": [{"message": {"content": "?"}, "logprobs": {"content": [{"top_logprobs": first}]}}]}


@pytest.mark.parametrize(
    "fault",
    [
        (429, {"error": "slow down"}),
        (503, b"starting"),
        (200, b"no json"),
        (200, b"[" * 100_000),
        (200, {"choices": []}),
        (200, {"choices": ["text"]}),
        (200, completion(None)),
        (200, completion(["Final Score: 3"])),
        (200, completion("I cannot judge that.")),
        (200, completion("Final Score: 7")),
        (200, completion("Final Score: 0")),
    ],
)
def test_a_fault_that_passes_is_outlived(waits, fault):
    app = Completions(fault, fault, (200, completion("Final Score: 4")))
    with running(app) as url:
        assert VLMJudge(url, "m")(gray(0.5), ["a cat"]).item() == pytest.approx(0.8)
    assert waits == [1.0, 2.0]


def test_one_that_stays_is_stated_and_no_score_before_it_is_lost(tmp_path, waits):
    cache = str(tmp_path / "scores.jsonl")
    app = Completions((200, completion("Final Score: 4")), (200, completion("Sorry!")))
    with running(app) as url:
        judge = VLMJudge(url, "m", cache=cache, retries=1, concurrency=1)
        with pytest.raises(
            ConnectionError,
            match=r"the judge m at http.* gave no score for the prompt 'a dog' in 2 attempts, at last: the answer states no "
            r"number from 1 to 5 after Final Score: 'Sorry!'; check the model there.* or set fallback",
        ):
            judge(gray(*torch.linspace(0.2, 0.8, 30).tolist()), ["a cat", "a dog", *["a bird"] * 28])
        assert set(waits) == {1.0}
        # the rest was not sent any more
        assert len(app.requests) < 30
        sent = len(app.requests)
        app.answers = [(200, completion("Final Score: 2"))]
        again = judge(gray(*torch.linspace(0.2, 0.8, 30)[:2].tolist()), ["a cat", "a dog"])
        assert again.tolist() == pytest.approx([0.8, 0.4])
    assert len(app.requests) == sent + 1


def test_a_fallback_is_for_answers_alone_and_is_not_cached(tmp_path):
    cache = str(tmp_path / "scores.jsonl")
    app = Completions((200, completion("Sorry!")))
    with running(app) as url:
        judge = VLMJudge(url, "m", cache=cache, retries=0, fallback=0.0)
        with pytest.warns(
            UserWarning, match=r"UnifiedReward of the prompt 'a cat': the answer states .*; its score is 0.0"
        ):
            assert judge(gray(0.5), ["a cat"]).item() == 0
        app.answers = [(200, completion("Final Score: 5"))]
        assert judge(gray(0.5), ["a cat"]).item() == 1
        app.answers = [(500, {"error": "out of memory"})]
        with pytest.raises(ConnectionError, match="at last: status 500, out of memory"):
            judge(gray(0.6), ["a cat"])


def test_an_endpoint_that_is_not_there_or_silent():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionError, match="in 1 attempts, at last: timed out"):
            VLMJudge(url, "m", timeout=0.05, retries=0)(gray(0.5), ["a cat"])
    with pytest.raises(ConnectionError, match="Connection refused"):
        VLMJudge(url, "m", retries=0)(gray(0.5), ["a cat"])


@pytest.mark.parametrize(
    ("status", "error", "hint"),
    [
        (401, "no", "status 401, no; set the environment variable MY_KEY"),
        (404, {"message": "no such model", "type": "x"}, "status 404, no such model; check url and model"),
    ],
)
def test_a_refusal_is_not_repeated(waits, status, error, hint):
    app = Completions((status, {"error": error}))
    with running(app) as url, pytest.raises(ValueError, match=f"refuses with {hint}"):
        VLMJudge(url, "m", key="MY_KEY")(gray(0.5), ["a cat"])
    assert (len(app.requests), waits) == (1, [])


@pytest.mark.parametrize(
    ("settings", "stated"),
    [
        ({"url": "localhost:8000"}, "begins with http"),
        ({"timeout": 0}, "timeout > 0"),
        ({"concurrency": 0}, "concurrency, frames and size of at least 1, got 0, 8 and None"),
        ({"size": 0}, "got 8, 8 and 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, stated):
    with pytest.raises(ValueError, match=stated):
        VLMJudge(**{"url": "http://x", "model": "m", **settings})


# ---------------------------------------------------------------- the key


def test_the_key_is_sent_and_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-123")
    cache = tmp_path / "scores.jsonl"
    # servers that repeat the key in their errors
    app = Completions(
        (200, completion("Final Score: 4")),
        (401, {"error": {"message": "wrong key: secret-123"}}),
        (500, {"error": "secret-123 is out of quota"}),
    )
    with running(app) as url:
        judge = VLMJudge(url, "m", key="MY_KEY", cache=str(cache), retries=0)
        judge(gray(0.5), ["a cat"])
        with pytest.raises(ValueError, match=r"wrong key: \[the API key\]") as refused:
            judge(gray(0.6), ["a cat"])
        with pytest.raises(ConnectionError, match=r"\[the API key\] is out of quota") as failed:
            judge(gray(0.6), ["a cat"])
    assert app.headers[0]["authorization"] == "Bearer secret-123"
    kept = [
        cache.read_text(),
        json.dumps(app.requests),
        str(vars(judge)),
        str(vars(judge.chat)),
        *chain(refused, failed),
    ]
    assert not any("secret" in text for text in kept)
    assert b"secret" not in pickle.dumps(judge)


def chain(*raised) -> list[str]:
    """The texts of errors and of all that they follow from and show."""
    texts = []
    for info in raised:
        error = info.value
        while error is not None:
            texts.append(str(error))
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return texts


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("tokens", "plain", "normalized"),
    [
        ({"Yes": 0.6, "No": 0.2}, 0.6, 0.75),
        ({"Yes": 0.5, " yes": 0.1, "YES": 0.1, "no": 0.3}, 0.7, 0.7),
        ({"The": 0.9, "Yes": 0.06, "No": 0.02}, 0.06, 0.75),
        ({"No": 1.0}, 0.0, 0.0),
        # another word that begins so is another word
        ({"Yesterday": 0.5, "Yes": 0.2, "No": 0.3}, 0.2, 0.4),
    ],
)
def test_the_probability_of_yes(tokens, plain, normalized):
    app = Completions((200, lines(**tokens)))
    with running(app) as url:
        for normalize, expected in ((False, plain), (True, normalized)):
            judge = VLMJudge(url, "m", YesNo(normalize=normalize))
            assert judge(gray(0.5), ["a cat"]).item() == pytest.approx(expected)
    assert app.asked[0][-1]["text"] == 'Does this figure show "a cat"? Please answer yes or no.'
    wanted = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20, "temperature": 0}
    assert wanted.items() <= app.requests[0].items()


@pytest.mark.parametrize(
    ("answer", "stated"),
    [
        (completion("Yes"), "the answer states no log-probabilities: 'Yes'"),
        (lines(The=0.5, A=0.4), "neither yes nor no is among the 2 most probable answers"),
        (
            {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "Yes", "logprob": "high"}]}]}}]},
            "states no log",
        ),
        (lines(Yes=0.8, yes=0.8), "neither yes nor no"),
    ],
)
def test_an_answer_without_probabilities_is_stated(answer, stated):
    with running(Completions((200, answer))) as url, pytest.raises(ConnectionError, match=stated):
        VLMJudge(url, "m", YesNo(), retries=0)(gray(0.5), ["a cat"])


@pytest.mark.parametrize(
    ("question", "answer", "score"),
    [
        (FinalScore(), "cat (animal): 1\nFinal Score: 3.75", 0.75),
        (FinalScore(), "**Final Score:** 4", 0.8),
        # one that thinks aloud
        (FinalScore(), "Final Score: 2? No.\nFinal Score: 5", 1.0),
        (AxisScores(), "Alignment Score (1-5): 2.5\nCoherence Score (1-5): 3.5\nStyle Score (1-5): 3", 0.6),
        (
            AxisScores({"Alignment": 0.8, "Coherence": 0.1, "Style": 0.1}),
            "Alignment Score (1-5): 5\nCoherence Score (1-5): 1\nStyle Score (1-5): 1",
            (0.8 * 5 + 0.2) / 5,
        ),
        (VideoAxisScores(), "Alignment Score (1-5): 2\nPhysics Score (1-5): 3\nStyle Score (1-5): 4", 0.6),
        (Scored("Rate {prompt}", {"Rating": 2.0}, highest=10), "Rating: 8", 0.8),
    ],
)
def test_scores_are_read_after_their_names(question, answer, score):
    assert question.read(completion(answer)["choices"][0]) == pytest.approx(score)
    assert "[a cat]" in question.text("a cat") or question.text("a cat") == "Rate a cat"


def test_every_axis_must_be_there():
    app = Completions((200, completion("Alignment Score (1-5): 3\nStyle Score (1-5): 3")))
    with running(app) as url, pytest.raises(ConnectionError, match="no number from 1 to 5 after Coherence Score"):
        VLMJudge(url, "m", AxisScores(), retries=0)(gray(0.5), ["a cat"])


def test_questions_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"YesNo.template: expected \{prompt\} in it, got 'Is it nice\?'"):
        YesNo("Is it nice?")
    with pytest.raises(ValueError, match=r"Scored.weights: expected weights >= 0, one above 0, got \{'A': 0.0\}"):
        Scored("{prompt}", {"A": 0.0})


def test_a_judge_is_named_by_its_question():
    judges = [VLMJudge("http://x", "m", question) for question in (None, AxisScores(), VideoAxisScores(), YesNo())]
    assert [judge.label for judge in judges] == ["UnifiedReward", "UnifiedReward2", "UnifiedReward2_video", "VLM_yes"]
