"""AES-256-GCM with a fresh nonce per sealing, by `cryptography`."""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from opsapi.workspaces.ports import CannotUnseal, Sealed

KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = b"\x01"


def key_from(text: str) -> bytes:
    """32 bytes in base64, as `openssl rand -base64 32` writes them. Raises ValueError, which never shows the text."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("an encryption key must be 32 bytes in base64 (make one: openssl rand -base64 32)") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"an encryption key must have {KEY_BYTES} bytes, not {len(key)}")
    return key


class AesGcmSealer:
    """Implements Sealer. Ciphertext: version byte, nonce, AES-GCM's output; the version and what it is bound to are
    authenticated."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """The first key seals, all unseal. Raises ValueError without any or for one of the wrong length."""
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"sealing needs at least one key, and every key must have {KEY_BYTES} bytes")
        self._ciphers = {_id_of(key): AESGCM(key) for key in keys}
        self._first = _id_of(keys[0])

    @property
    def key_id(self) -> str:
        return self._first

    def seal(self, plain: bytes, *, bound_to: str) -> Sealed:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._first].encrypt(nonce, plain, _VERSION + bound_to.encode())
        return Sealed(self._first, _VERSION + nonce + sealed)

    def unseal(self, sealed: Sealed, *, bound_to: str) -> bytes:
        cipher = self._ciphers.get(sealed.key_id)
        held = sealed.ciphertext
        if cipher is None or held[:1] != _VERSION or len(held) <= 1 + _NONCE_BYTES:
            raise CannotUnseal
        nonce, text = held[1 : 1 + _NONCE_BYTES], held[1 + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, text, _VERSION + bound_to.encode())
        except InvalidTag as error:
            raise CannotUnseal from error


def _id_of(key: bytes) -> str:
    return hmac.digest(key, b"opsapi sealing key id", hashlib.sha256).hex()[:16]
