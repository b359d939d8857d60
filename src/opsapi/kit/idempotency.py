"""The idempotency port: the first answer to a key is the answer, also after a restart."""

from typing import Protocol

import msgspec


class StoredAnswer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes


class Claimed(msgspec.Struct, frozen=True):
    """The key is ours; the work may begin. `claim_id` fences a claim that was taken over after its owner died."""

    claim_id: str


class InProgress(msgspec.Struct, frozen=True):
    """A twin with the same body holds the key."""


class Reused(msgspec.Struct, frozen=True):
    """The key was used with another body."""


class IdempotencyStore(Protocol):
    """Keys are unique per account, method and path, and live 24 hours. `fingerprint` is a hash of the body."""

    async def claim(
        self, account_id: str, method: str, path: str, key: str, fingerprint: bytes
    ) -> Claimed | InProgress | Reused | StoredAnswer: ...

    async def finish(self, claim_id: str, answer: StoredAnswer) -> None:
        """Keeps the answer; only answers that are final (below 500, not 429) are kept, others are abandoned."""
        ...

    async def abandon(self, claim_id: str) -> None:
        """Frees the key, so that the caller may try again."""
        ...
