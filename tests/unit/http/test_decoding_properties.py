"""Whatever is sent: a clear answer, never a 5xx, and nothing done that was not asked for."""

import contextlib
import json
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsapi.http.bodies import BodyDecoder
from opsapi.http.errors import MalformedJson
from opsapi.http.params import parse_query, percent_decoded, segment
from opsapi.http.projection import Projection, project
from opsapi.http.serving import accepts
from opsapi.kit.errors import OpsError, ValidationFailed
from support.http import WIDGET, MakeWidget, Widget, call, credentials, world

WIDGETS = "/internal/v1/workspaces/ws-1/widgets"
JSON = credentials(Content_Type="application/json")
DECODER: Any = BodyDecoder(MakeWidget, 64)
HEADERS = [
    "Accept",
    "Authorization",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Idempotency-Key",
    "Transfer-Encoding",
    "X-Agent-Run",
    "X-Forwarded-For",
    "X-On-Behalf-Of",
    "X-Request-Id",
    "X-Service-Account",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
widget_like = st.fixed_dictionaries(
    {},
    optional={
        "name": json_values,
        "size": json_values,
        "colour": json_values,
        "ports": st.lists(st.fixed_dictionaries({}, optional={"name": json_values, "number": json_values}), max_size=3),
        "labels": json_values,
        "extra": json_values,
    },
)


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_are_refused_by_name(raw: bytes) -> None:
    with contextlib.suppress(MalformedJson, ValidationFailed):
        assert DECODER.decode(raw).name


@given(json_values | widget_like)
def test_a_refused_document_names_at_least_one_field_and_an_accepted_one_is_what_was_sent(value: Any) -> None:
    raw = json.dumps(value).encode()
    try:
        decoded = DECODER.decode(raw)
    except ValidationFailed as error:
        fields = msgspec.to_builtins(error.details)["fields"]
        assert fields
        assert all(path and reason for path, reason in fields.items())
    except MalformedJson:
        assert "\\ud" in raw.decode()
    else:
        sent = msgspec.to_builtins(decoded)
        assert all(sent[name] == value[name] for name in value)


@given(widget_like)
def test_acceptance_is_msgspecs_own(value: dict[str, Any]) -> None:
    raw = msgspec.json.encode(value) if _encodable(value) else b"{}"
    try:
        expected: Any = msgspec.json.decode(raw, type=MakeWidget)
    except msgspec.ValidationError:
        with pytest.raises(ValidationFailed):
            DECODER.decode(raw)
    else:
        if b"\\u0000" not in raw:
            assert DECODER.decode(raw) == expected


def _encodable(value: Any) -> bool:
    try:
        msgspec.json.encode(value)
    except (OverflowError, UnicodeEncodeError, msgspec.EncodeError):
        return False
    return True


@given(st.integers(1, 200))
def test_nesting_is_refused_from_the_limit_on_and_not_before(depth: int) -> None:
    decoder = BodyDecoder(MakeWidget, 64)
    raw = b"[" * depth + b"]" * depth
    with pytest.raises(OpsError) as refusal:
        decoder.decode(raw)
    assert isinstance(refusal.value, MalformedJson if depth > 64 else ValidationFailed)


@given(st.dictionaries(st.text(min_size=1, max_size=10), st.text(max_size=20), max_size=5))
def test_a_well_formed_query_is_read_as_it_was_written(pairs: dict[str, str]) -> None:
    raw = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs.items()).encode()
    try:
        assert parse_query(raw) == pairs
    except ValidationFailed:
        assert any(not char.isprintable() for text in (*pairs, *pairs.values()) for char in text)


@given(st.binary(max_size=60))
def test_any_query_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        for name, value in parse_query(raw).items():
            assert "\n" not in name + value
            assert "\0" not in name + value
    except ValidationFailed:
        pass


@given(st.binary(max_size=40))
def test_a_path_segment_never_climbs(raw: bytes) -> None:
    try:
        text = segment(raw)
    except ValueError:
        return
    assert text not in ("", ".", "..")
    assert not set(text) & set("/\\\0\r\n")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=30))
def test_decoding_undoes_exactly_one_encoding(text: str) -> None:
    once = quote(text, safe="")
    assert percent_decoded(once.encode()) == text
    assert percent_decoded(quote(once, safe="").encode()) == once


@given(st.binary(max_size=80))
def test_any_accept_header_is_understood(raw: bytes) -> None:
    assert accepts(raw, b"application/json") in (True, False)


@given(
    st.lists(
        st.sampled_from(["id", "name", "ports", "ports.name", "ports.number", "labels", "labels.team"]), min_size=1
    )
)
def test_a_projection_holds_nothing_that_the_answer_does_not(names: list[str]) -> None:
    whole = msgspec.to_builtins(WIDGET)
    part = project(WIDGET, Projection(Widget).parse(",".join(names)))
    assert set(part) == {name.split(".")[0] for name in names}
    for name in names:
        if "." not in name:
            assert part[name] == whole[name]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]),
    tail=st.binary(max_size=30) | st.sampled_from([b"ws-1/widgets", b"ws-9/widgets", b"ws-1", b"%2e%2e/x", b"//"]),
    query=st.binary(max_size=40) | st.sampled_from([b"limit=5", b"fields=name", b"fields=", b"colours=,,"]),
    body=st.binary(max_size=60) | widget_like.map(lambda value: json.dumps(value).encode()),
    headers=st.dictionaries(
        st.sampled_from(HEADERS),
        st.text(st.characters(max_codepoint=255), max_size=20)
        | st.sampled_from(["application/json", "chunked", "*/*"]),
        max_size=4,
    ),
)
async def test_no_request_is_answered_with_a_5xx_or_out_of_shape(
    method: str, tail: bytes, query: bytes, body: bytes, headers: dict[str, str]
) -> None:
    w = world(trusted_proxies=("127.0.0.0/8",))
    path = "/internal/v1/workspaces/" + tail.decode("latin-1")
    answer = await call(w.app(), method, path, headers=JSON | headers, query=query, body=body)
    assert 200 <= answer.status < 500
    if answer.status >= 400:
        error = answer.json()["error"]
        assert set(error) == {"code", "message", "details", "request_id"}
        assert "x-ratelimit-limit" in answer.headers
    assert len(w.audit.entries) == 1
    assert all("\n" not in value and "\r" not in value for value in answer.headers.values())
