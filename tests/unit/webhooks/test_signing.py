"""Signatures are those of Standard Webhooks, as its own library verifies them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from opsapi.kit.secret import Secret
from opsapi.webhooks.signing import new_secret, parse_secret, secret_text, signed_headers

BODY = '{"type":"internal.operation.failed","data":{"reason":"größer"}}'.encode()


def _now() -> datetime:
    return datetime.now(UTC)


def _verified(secret: bytes, headers: dict[str, str], body: bytes = BODY) -> bool:
    try:
        Webhook(secret_text(secret).reveal()).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def test_a_receiver_verifies_what_was_signed() -> None:
    secret = new_secret()
    assert len(secret) == 32
    assert _verified(secret, signed_headers("evt-1", _now(), BODY, [secret]))


def test_while_a_secret_is_rotated_a_receiver_with_either_verifies() -> None:
    old, new = new_secret(), new_secret()
    headers = signed_headers("evt-1", _now(), BODY, [new, old])
    assert [part.split(",")[0] for part in headers["webhook-signature"].split(" ")] == ["v1", "v1"]
    assert (_verified(old, headers), _verified(new, headers), _verified(new_secret(), headers)) == (True, True, False)


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "body"])
def test_whatever_is_changed_on_the_way_is_noticed(changed: str) -> None:
    secret = new_secret()
    headers, body = signed_headers("evt-1", _now(), BODY, [secret]), BODY
    if changed == "body":
        body = BODY.replace(b"failed", b"passed")
    elif changed == "webhook-id":
        headers["webhook-id"] = "evt-2"
    else:
        headers["webhook-timestamp"] = str(int((_now() + timedelta(seconds=9)).timestamp()))
    assert not _verified(secret, headers, body)


@given(st.binary(min_size=24, max_size=64))
def test_a_secret_is_read_as_it_is_shown(secret: bytes) -> None:
    assert parse_secret(secret_text(secret)) == secret


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_c2hvcnQ=", "c" * 44, "whsec_!!!", f"whsec_{'A' * 100}"])
def test_what_is_no_secret_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match="a signing secret is `whsec_`") as refused:
        parse_secret(Secret(text))
    assert len(text) < 7 or text not in str(refused.value)


def test_a_secret_shows_itself_nowhere() -> None:
    assert "whsec" not in f"{secret_text(new_secret())!r} {secret_text(new_secret())}"
