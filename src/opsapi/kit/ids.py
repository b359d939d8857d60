"""Identifiers: random ones for what we create, stable ones for what Kubernetes holds."""

import hashlib
import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: no i, l, o, u, so ids survive being read aloud."""


_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]


def _base32(raw: bytes) -> str:
    """10 bytes as 16 digits, two at a time: every request takes an id, so it counts."""
    number = int.from_bytes(raw, "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in (70, 60, 50, 40, 30, 20, 10, 0)])


def new_id(prefix: str) -> str:
    """`op-` and 80 random bits: `op-7k2m9q4x1v8c5b3n`."""
    return f"{prefix}-{_base32(secrets.token_bytes(10))}"


def stable_id(prefix: str, *parts: str) -> str:
    """The same parts give the same id on every replica; 80 bits of SHA-256 over length-prefixed parts."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return f"{prefix}-{_base32(digest.digest()[:10])}"
