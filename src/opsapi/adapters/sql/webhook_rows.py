"""A webhook of its row, and the sealed secrets in it."""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from opsapi.webhooks.errors import NoSigningKey
from opsapi.webhooks.model import DisabledBecause, Webhook
from opsapi.workspaces.ports import CannotUnseal, Sealed, Sealer

_FIELDS = tuple(field.name for field in msgspec.structs.fields(Webhook))


def webhook_of(row: sa.RowMapping) -> Webhook:
    because = row["disabled_because"]
    held = {name: row[name] for name in _FIELDS}
    return Webhook(**(held | {"disabled_because": None if because is None else DisabledBecause(because)}))


class SigningSecrets:
    """Each secret is bound to its webhook: none opens as another's."""

    def __init__(self, sealer: Sealer | None) -> None:
        self._sealer = sealer

    @property
    def key_id(self) -> str | None:
        return None if self._sealer is None else self._sealer.key_id

    def sealed(self, webhook_id: str, secret: bytes) -> dict[str, Any]:
        """The columns `secret` and `secret_key_id`. Raises NoSigningKey."""
        if self._sealer is None:
            raise NoSigningKey
        sealed = self._sealer.seal(secret, bound_to=_binding(webhook_id))
        return {"secret": sealed.ciphertext, "secret_key_id": sealed.key_id}

    def keys(self, row: sa.RowMapping, now: datetime) -> tuple[bytes, ...] | None:
        """The secrets that sign at `now`, the newest first; None where the newest cannot be opened."""
        newest = self._opened(row["id"], row["secret"], row["secret_key_id"])
        if newest is None:
            return None
        until = row["previous_secret_until"]
        previous = None
        if until is not None and until > now and row["previous_secret"] is not None:
            previous = self._opened(row["id"], row["previous_secret"], row["previous_secret_key_id"])
        return (newest,) if previous is None else (newest, previous)

    def _opened(self, webhook_id: str, ciphertext: bytes, key_id: str) -> bytes | None:
        if self._sealer is None:
            return None
        try:
            return self._sealer.unseal(Sealed(key_id, bytes(ciphertext)), bound_to=_binding(webhook_id))
        except CannotUnseal:
            return None


def _binding(webhook_id: str) -> str:
    return f"webhook/{webhook_id}/secret"
