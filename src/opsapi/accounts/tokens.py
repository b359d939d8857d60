"""A token's text: `opsa_`, 32 random characters and a checksum of six, all base 62.

The fixed start and the checksum let secret scanners tell a leaked token from noise without asking us: the pattern is
`opsa_[0-9A-Za-z]{38}`, and the last six characters are the CRC-32 (ISO 3309) of all before them in base 62.
"""

import hashlib
import re
import secrets
import zlib

PREFIX = "opsa_"
RANDOM_LENGTH = 32
"""190 bits."""
CHECKSUM_LENGTH = 6
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(f"{PREFIX}[0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH}}}", re.ASCII)


def checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits


def new_secret() -> str:
    body = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_LENGTH))
    return body + checksum(body)


def well_formed(text: str) -> bool:
    """Whether it could be a token at all; says nothing of whether it is one."""
    if _FORM.fullmatch(text) is None:
        return False
    return checksum(text[:-CHECKSUM_LENGTH]) == text[-CHECKSUM_LENGTH:]


def sha256(secret: str) -> bytes:
    """What is stored. A fast hash suffices: 190 random bits cannot be guessed."""
    return hashlib.sha256(secret.encode()).digest()
