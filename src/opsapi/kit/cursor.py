"""Opaque, stable cursors of lists: a position, readable by us alone by convention, useless to forge.

A cursor grants nothing: filters and permissions are applied again on every page. The check characters catch what was
cut, mistyped or taken from another list.
"""

import base64
import binascii
import hashlib
from typing import TypeVar

import msgspec

from opsapi.kit.errors import ValidationFailed

VERSION = 1
MAX_LENGTH = 1024
_CHECK_BYTES = 6
P = TypeVar("P", bound=msgspec.Struct)


def _check(purpose: str, raw: bytes) -> bytes:
    return hashlib.sha256(purpose.encode() + b"\0" + raw).digest()[:_CHECK_BYTES]


def encode_cursor(purpose: str, position: msgspec.Struct) -> str:
    """`purpose` names the list and whatever else must be the same on the next page."""
    raw = bytes([VERSION]) + msgspec.json.encode(position)
    return base64.urlsafe_b64encode(_check(purpose, raw) + raw).rstrip(b"=").decode()


def decode_cursor(purpose: str, text: str, position: type[P]) -> P:
    """Raises ValidationFailed for what is not this list's cursor."""
    try:
        if len(text) > MAX_LENGTH:
            raise ValueError("too long")
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        check, raw = whole[:_CHECK_BYTES], whole[_CHECK_BYTES:]
        if raw[:1] != bytes([VERSION]) or check != _check(purpose, raw):
            raise ValueError("not ours")
        if base64.urlsafe_b64encode(whole).rstrip(b"=").decode() != text:
            raise ValueError("not as we write it")
        return msgspec.json.decode(raw[1:], type=position)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        reason = "is not a cursor of this list; start again without one"
        raise ValidationFailed({"cursor": reason}) from None
