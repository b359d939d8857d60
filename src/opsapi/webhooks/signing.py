"""Signatures and headers of Standard Webhooks (https://www.standardwebhooks.com), symmetric, version 1."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

from opsapi.kit.secret import Secret

_PREFIX = "whsec_"
_BYTES = 32
_SHORTEST, _LONGEST = 24, 64
"""The specification's bounds."""


def new_secret() -> bytes:
    return secrets.token_bytes(_BYTES)


def secret_text(secret: bytes) -> Secret:
    """`whsec_` and base64, as receivers' libraries take it."""
    return Secret(_PREFIX + base64.b64encode(secret).decode())


def parse_secret(text: Secret) -> bytes:
    """Raises ValueError, which never shows the text."""
    raw = text.reveal()
    try:
        secret = base64.b64decode(raw.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not raw.startswith(_PREFIX) or not _SHORTEST <= len(secret) <= _LONGEST:
        raise ValueError(f"a signing secret is `{_PREFIX}` and {_SHORTEST} to {_LONGEST} random bytes in base64")
    return secret


def signed_headers(message_id: str, at: datetime, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """One signature a key: while a secret is rotated, receivers may know either."""
    timestamp = str(int(at.timestamp()))
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
