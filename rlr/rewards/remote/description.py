"""The description of a reward server in OpenAPI 3.1, which it serves as ``GET /openapi.json``."""

from importlib.metadata import version
from typing import Any

from rlr.rewards.remote.protocol import Limits

REFUSALS = {
    400: "The request is malformed.",
    401: "The token is missing or wrong.",
    408: "The body of the request took too long.",
    413: "The request is beyond a limit.",
    415: "The request has another type than application/json.",
    421: "The server is not asked under that host.",
    422: "The reward refuses the samples or the prompts.",
    500: "The reward has failed; the log of the server says why.",
    503: "The server is busy, or the reward took too long: ask again.",
}
"""What each status of a refusal means."""
OF_ALL = (401, 421, 503)
"""The refusals that every request may meet."""


def description(limits: Limits, locked: bool) -> dict[str, Any]:
    """Returns the description of a server.

    Args:
        limits: The largest request.
        locked: Whether requests must show a token.
    """
    health = _operation("health", "Label, scales and direction of the reward", "Facts", OF_ALL)
    document = _operation("openapi", "This description", "Description", OF_ALL)
    score = _operation("score", "One score a sample", "Scores", tuple(REFUSALS))
    score["requestBody"] = {"required": True, "content": _json("Request")}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "A reward of RLR", "version": version("rlr"), "description": __doc__},
        "paths": {"/health": {"get": health}, "/openapi.json": {"get": document}, "/score": {"post": score}},
        "components": {"schemas": _schemas(limits)},
    }
    if locked:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _operation(name: str, summary: str, schema: str, refusals: tuple[int, ...]) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": summary, "content": _json(schema)}}
    for status in refusals:
        answers[str(status)] = {"description": REFUSALS[status], "content": _json("Refusal")}
    # uvicorn itself answers in plain text where a head is no HTTP and where there are too many connections
    for status in {400, 503}:
        answer = answers.setdefault(str(status), {"description": REFUSALS[status], "content": {}})
        answer["content"]["text/plain"] = {"schema": {"type": "string"}}
    return {"operationId": name, "summary": summary, "responses": answers}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _schemas(limits: Limits) -> dict[str, Any]:
    image = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png", "format": "png"}
    video = {"type": "array", "items": image, "minItems": 1, "maxItems": limits.files}
    count = {"minItems": 1, "maxItems": limits.samples}
    prompt = {"type": "string", "maxLength": limits.characters}
    samples = {"oneOf": [{"type": "array", "items": kind, **count} for kind in (image, video)]}
    return {
        "Request": _object(prompts={"type": "array", "items": prompt, **count}, samples=samples),
        "Scores": _object(scores={"type": "array", "items": {"type": ["number", "null"]}, **count}),
        "Facts": _object(
            label={"type": "string"},
            scales={"type": "object", "additionalProperties": {"type": "number"}},
            higher_is_better={"type": "boolean"},
            version={"type": "string"},
        ),
        "Description": {"type": "object", "required": ["openapi", "paths"]},
        "Refusal": _object(error={"type": "string", "minLength": 1}),
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
