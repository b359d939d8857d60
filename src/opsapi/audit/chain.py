"""The chain: each entry's MAC covers its place, its content and the MAC before it. Pure.

    mac(n) = HMAC-SHA256(key, encode(version, n, mac(n-1), content(n))),   mac(0) = GENESIS

Who can write to the database but has no key cannot make a MAC, so altered, moved and removed entries show. A chain that
was cut off at its end, head and all, is still a valid chain; checkpoints, which are exported out of the database, tell
how long it must be. An entry is protected from the moment that it is linked, about a second after it was written: what
is removed, altered or slipped in before is not found.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from opsapi.audit.model import AuditEntry

VERSION = 1
GENESIS = hashlib.sha256(b"opsapi audit chain").digest()


class ChainHead(msgspec.Struct, frozen=True):
    """The last link; seq 0 with GENESIS where there is none."""

    seq: int = 0
    mac: bytes = GENESIS


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """What the chain adds to an entry."""

    entry_id: str
    seq: int
    mac: bytes
    key_id: str


class ChainedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as stored, with its link."""

    entry: AuditEntry
    seq: int
    mac: bytes
    key_id: str


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Says that at `at` the chain had `seq` entries and ended in `mac`; `signature` by the same key."""

    seq: int
    mac: bytes
    key_id: str
    at: datetime
    signature: bytes


class ChainKeys:
    """The key that links, and earlier ones that still verify. Keys are at least 32 bytes, from outside the database."""

    def __init__(self, current: bytes, previous: Sequence[bytes] = ()) -> None:
        """Raises ValueError for a key that is too short."""
        if any(len(key) < 32 for key in (current, *previous)):
            raise ValueError("an audit key must have at least 32 bytes")
        self.current_id = self.id_of(current)
        self._keys = {self.id_of(key): key for key in (*previous, current)}

    @staticmethod
    def id_of(key: bytes) -> str:
        """Names a key without telling it: 64 bits of a MAC made with it."""
        return hmac.digest(key, b"opsapi audit key id", "sha256").hex()[:16]

    def mac(self, key_id: str, message: bytes) -> bytes | None:
        """None where the key is not ours."""
        key = self._keys.get(key_id)
        return None if key is None else hmac.digest(key, message, "sha256")


_encode = msgspec.json.Encoder(order="deterministic").encode
"""Keys are sorted, so that a value has one encoding only."""


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def content(entry: AuditEntry) -> dict[str, object]:
    """Every field that is not null: one that a later release adds does not change what earlier ones linked."""
    values = {name: value for name, value in msgspec.structs.asdict(entry).items() if value is not None}
    values["at"] = _moment(entry.at)
    return values


def entry_mac(keys: ChainKeys, key_id: str, seq: int, before: bytes, entry: AuditEntry) -> bytes | None:
    message = _encode(["entry", VERSION, key_id, seq, before.hex(), content(entry)])
    return keys.mac(key_id, message)


def links(keys: ChainKeys, head: ChainHead, entries: Iterable[AuditEntry]) -> list[Link]:
    """Appends entries in the order given."""
    made = []
    for entry in entries:
        mac = entry_mac(keys, keys.current_id, head.seq + 1, head.mac, entry)
        assert mac is not None
        head = ChainHead(head.seq + 1, mac)
        made.append(Link(entry_id=entry.id, seq=head.seq, mac=mac, key_id=keys.current_id))
    return made


def _checkpoint_message(seq: int, mac: bytes, key_id: str, at: datetime) -> bytes:
    return msgspec.json.encode(["checkpoint", VERSION, key_id, seq, mac.hex(), _moment(at)])


def checkpoint(keys: ChainKeys, head: ChainHead, at: datetime) -> Checkpoint:
    signature = keys.mac(keys.current_id, _checkpoint_message(head.seq, head.mac, keys.current_id, at))
    assert signature is not None
    return Checkpoint(seq=head.seq, mac=head.mac, key_id=keys.current_id, at=at, signature=signature)


def is_genuine(keys: ChainKeys, mark: Checkpoint) -> bool:
    expected = keys.mac(mark.key_id, _checkpoint_message(mark.seq, mark.mac, mark.key_id, mark.at))
    return expected is not None and hmac.compare_digest(expected, mark.signature)
