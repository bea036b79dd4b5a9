"""The server does what its OpenAPI description says, to requests that fit it and to those that do not."""

import io
import os
from base64 import b64encode

import jsonschema
import pytest
import schemathesis
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from rlr.rewards import Brightness
from rlr.rewards.remote.description import REFUSALS, description
from rlr.rewards.remote.protocol import Limits
from rlr.rewards.remote.server import Service, application

LIMITS = Limits(samples=3, files=6, characters=50)
HOSTS = ["testserver"]
TOKEN = "a-token-of-twenty-four-c"


def png(size: tuple[int, int], color: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return b64encode(buffer.getvalue()).decode()


schemathesis.openapi.format(
    "png", st.builds(png, st.sampled_from([(2, 2), (2, 3)]), st.tuples(*[st.integers(0, 255)] * 3))
)


class Moody(Brightness):
    """Scores, has no score, refuses, or fails, as the first prompt is."""

    def forward(self, samples, prompts):
        kind = len(prompts[0]) % 7
        if kind == 5:
            raise ValueError("no caption")
        scores = super().forward(samples.flatten(0, -4)[: len(prompts)], prompts)
        return scores / (kind != 6)


REFUSED = [400, 401, 413, 415, 422]
"""What may be answered to a request that the description forbids; 413 is beyond a limit that it states."""
CHECKS = {
    "negative_data_rejection": {"expected-statuses": REFUSED},
    # no schema says that there are as many prompts as samples, all images of one size, and so many of all samples together
    "positive_data_acceptance": {"expected-statuses": [200, 400, 413, 422]},
}


def schema_of(app, token: str | None = None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    config = SchemathesisConfig.from_dict({"checks": CHECKS})
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=config, headers=headers), headers


APP = application(Service(Moody(), torch.device("cpu"), LIMITS), TOKEN, HOSTS)
SCHEMA, HEADERS = schema_of(APP, TOKEN)
CASES = int(os.environ.get("RLR_FUZZ", 200))
"""The number of cases, of which the ones of ``make test`` are always the same, as in ``tests/hostile/test_fuzz.py``."""
FAST = settings(
    max_examples=60 * CASES // 200,
    deadline=None,
    derandomize=CASES == 200,
    print_blob=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
seen: set[int] = set()
"""The statuses of all answers of this file."""


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_one_of_the_description(mode):
    """Status, type and content of each answer are described; what the description forbids is refused, as is a missing token."""

    @FAST
    @given(case=SCHEMA["/score"]["POST"].as_strategy(generation_mode=mode))
    def check(case):
        response = case.call(headers=HEADERS)
        case.validate_response(response)
        seen.add(response.status_code)

    check()
    assert seen & ({200, 422} if mode == GenerationMode.POSITIVE else {400, 413, 415})


@pytest.mark.parametrize("path", ["/health", "/openapi.json"])
def test_so_is_every_answer_to_what_has_no_body(path):
    @settings(FAST, max_examples=5)
    @given(case=SCHEMA[path]["GET"].as_strategy())
    def check(case):
        case.call_and_validate(headers=HEADERS)

    check()


def test_the_law_can_fail():
    """A server whose answer lacks what is described is found out."""

    class Other(Service):
        async def answer(self, request):
            response = await super().answer(request)
            response.status_code = 202
            return response

    schema, headers = schema_of(application(Other(Brightness(), torch.device("cpu"), LIMITS), hosts=HOSTS))

    @settings(FAST, max_examples=20)
    @given(case=schema["/score"]["POST"].as_strategy())
    def check(case):
        case.call_and_validate(headers=headers)

    with pytest.raises(BaseException, match="Undocumented status code"):
        check()


def test_the_description_names_the_limits_and_the_refusals():
    found = description(LIMITS, locked=True)
    request = found["components"]["schemas"]["Request"]
    assert request["properties"]["prompts"]["maxItems"] == 3
    assert found["security"] == [{"token": []}]
    assert set(found["paths"]["/score"]["post"]["responses"]) == {"200", *map(str, REFUSALS)}
    assert "security" not in description(LIMITS, locked=False)


def test_the_schemas_of_the_description_are_schemas():
    for schema in description(LIMITS, True)["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
