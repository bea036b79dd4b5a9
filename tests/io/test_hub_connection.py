"""A hub that does not answer is asked once; one that answers is used as ever."""

import huggingface_hub.utils
import pytest
from huggingface_hub import constants

from rlr.io import hub_connection
from rlr.io.hub_connection import cache_if_offline, unreachable


class Session:
    """Counts the requests; ``fault`` is raised for each."""

    def __init__(self, fault=None):
        self.fault, self.asked = fault, []

    def request(self, method, url, timeout):
        self.asked.append((method, url))
        if self.fault:
            raise self.fault


@pytest.fixture
def session(monkeypatch):
    """Puts a session in the place of the hub's client, which the tests take offline."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def use(session):
        hub_connection._answers.cache_clear()
        monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: session)
        monkeypatch.setattr(hub_connection, "monotonic", lambda: 30.0)
        return session

    yield use
    hub_connection._answers.cache_clear()


def test_a_hub_that_answers_is_used(session):
    asked = session(Session()).asked
    for _ in range(3):
        with cache_if_offline("a/model"):
            assert not constants.is_offline_mode()
    assert unreachable() is None
    assert asked == [("HEAD", constants.ENDPOINT)]


def test_a_hub_that_does_not_answer_is_left_alone(session, monkeypatch):
    asked = session(Session(ConnectionError("no route"))).asked
    for _ in range(3):
        with cache_if_offline("a/model"):
            assert constants.is_offline_mode()
        assert not constants.is_offline_mode()
    assert unreachable() == f"{constants.ENDPOINT} does not answer"
    assert len(asked) == 1
    monkeypatch.setattr(hub_connection, "monotonic", lambda: 100.0)
    assert unreachable()
    assert len(asked) == 2


def test_local_files_ask_nothing(session, tmp_path):
    asked = session(Session(ConnectionError())).asked
    with cache_if_offline(str(tmp_path)):
        assert not constants.is_offline_mode()
    assert asked == []


def test_the_setting_of_the_user_has_precedence(session, monkeypatch):
    asked = session(Session()).asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with cache_if_offline("a/model"):
        assert constants.is_offline_mode()
    assert constants.is_offline_mode()
    assert unreachable() == "HF_HUB_OFFLINE is set"
    assert asked == []
