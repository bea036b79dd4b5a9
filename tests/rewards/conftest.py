from collections.abc import Iterator

import pytest

from tests.rewards.vectors import Reading, load, named


@pytest.fixture
def vectors(request: pytest.FixtureRequest) -> Iterator[Reading]:
    """What the test declares to read, all of which it must."""
    case, keys = request.function.reads
    callspec = getattr(request.node, "callspec", None)
    reading = Reading(load(case), named(case, keys, callspec.params if callspec else {}))
    yield reading
    assert not reading.unread, f"declared and not read: {', '.join(sorted(reading.unread))}"
