"""Identifiers: random ones for what we create, stable ones for what Kubernetes holds."""

import hashlib
import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: no i, l, o, u, so ids survive being read aloud."""


def _base32(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def new_id(prefix: str) -> str:
    """`op-` and 80 random bits: `op-7k2m9q4x1v8c5b3n`."""
    return f"{prefix}-{_base32(secrets.randbits(80), 16)}"


def stable_id(prefix: str, *parts: str) -> str:
    """The same parts give the same id on every replica; 80 bits of SHA-256 over length-prefixed parts."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return f"{prefix}-{_base32(int.from_bytes(digest.digest()[:10], 'big'), 16)}"
