"""A backup's manifests in the store: a file an object, and an index that names each with its checksum.

    <workspace>/<backup>/objects/<resource>/<name>.json
    <workspace>/<backup>/index.json

The index is written last and removed first, so that what has an index was once whole. The SHA-256 of the index itself
is kept in the database: whoever can write to the store alone cannot pass off another backup as this one.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from opsapi.backups.kinds import SECRETS, place_in_order, resource_of
from opsapi.backups.model import Backup, LeftOut, Target, Volume
from opsapi.backups.ports import Missing, ObjectStore
from opsapi.workspaces.ports import CannotUnseal, Sealed, Sealer
from opsapi.workspaces.writing import JsonObject, Resource

FORMAT = 1
INDEX = "index.json"


class IndexedFile(msgspec.Struct, frozen=True, kw_only=True):
    """`path` below the backup's location; `sha256` (hex) and `size` of the bytes as stored, sealed where `sealed`."""

    path: str
    kind: str
    name: str
    sha256: str
    size: int
    sealed: bool = False


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """`format` is this layout's version, `cluster_version` Kubernetes' where it is known."""

    format: int
    backup_id: str
    operation_id: str
    target: Target
    written_at: datetime
    cluster_version: str | None
    files: list[IndexedFile]
    volumes: list[Volume]
    left_out: list[LeftOut]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """`checksum` of the index; `size` in bytes of all files and the index."""

    checksum: str
    size: int
    index: Index


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found: every file's bytes as they are, and what is wrong."""

    index: Index | None
    contents: dict[str, bytes]
    damage: list[str]
    size: int = 0


class _SealedFile(msgspec.Struct, frozen=True):
    sealed_with: str
    ciphertext: str
    """Base64."""


class Unreadable(Exception):
    """A file cannot be turned into its object again; the text says why."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Archive:
    def __init__(self, store: ObjectStore, sealer: Sealer | None) -> None:
        self._store = store
        self._sealer = sealer

    async def write(
        self,
        backup: Backup,
        objects: Iterable[tuple[Resource, JsonObject]],
        *,
        volumes: list[Volume],
        left_out: list[LeftOut],
        cluster_version: str | None,
        at: datetime,
    ) -> Written:
        """Replaces what an earlier try left. Raises DependencyUnavailable."""
        await self._store.delete(self._path(backup, INDEX))
        ordered = sorted(objects, key=lambda one: (place_in_order(one[0]), one[1]["metadata"]["name"]))
        files = [await self._put(backup, resource, body) for resource, body in ordered]
        index = Index(
            format=FORMAT,
            backup_id=backup.id,
            operation_id=backup.operation_id,
            target=backup.target,
            written_at=at,
            cluster_version=cluster_version,
            files=files,
            volumes=volumes,
            left_out=left_out,
        )
        data = _encoded(index)
        await self._store.put(self._path(backup, INDEX), data)
        return Written(checksum=sha256(data), size=len(data) + sum(one.size for one in files), index=index)

    async def found(self, backup: Backup) -> Written | None:
        """What an earlier try of the same operation has written to its end."""
        try:
            data = await self._store.get(self._path(backup, INDEX))
        except Missing:
            return None
        as_written = msgspec.structs.replace(backup, checksum=sha256(data))
        checked = await self.check(as_written)
        if checked.index is None or checked.damage:
            return None
        return Written(checksum=sha256(data), size=checked.size, index=checked.index)

    async def check(self, backup: Backup) -> Checked:
        """Reads everything again and holds it against the index, and the index against the record."""
        try:
            data = await self._store.get(self._path(backup, INDEX))
        except Missing:
            return Checked(index=None, contents={}, damage=["the index is missing"])
        if sha256(data) != backup.checksum:
            return Checked(index=None, contents={}, damage=["the index is not the one that was written"])
        try:
            index = msgspec.json.decode(data, type=Index)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Checked(index=None, contents={}, damage=["the index cannot be read"])
        if index.format != FORMAT or index.backup_id != backup.id:
            return Checked(index=None, contents={}, damage=["the index is of another backup or format"])
        contents: dict[str, bytes] = {}
        damage = []
        for one in index.files:
            try:
                held = await self._store.get(self._path(backup, one.path))
            except Missing:
                damage.append(f"{one.path} is missing")
                continue
            contents[one.path] = held
            if len(held) != one.size or sha256(held) != one.sha256:
                damage.append(f"{one.path} is not what was written")
        size = len(data) + sum(len(held) for held in contents.values())
        return Checked(index=index, contents=contents, damage=damage, size=size)

    def objects(self, backup: Backup, checked: Checked) -> list[tuple[Resource, JsonObject]]:
        """The objects of an undamaged backup, in the order in which they are created. Raises Unreadable."""
        assert checked.index is not None
        assert not checked.damage
        found = []
        for one in checked.index.files:
            resource = resource_of(one.kind)
            if resource is None:
                raise Unreadable(f"{one.path} is of a kind that this release does not restore")
            found.append((resource, self._object(backup, one, checked.contents[one.path])))
        return found

    async def erase(self, location: str) -> int:
        """The index first. How many files there were."""
        await self._store.delete(f"{location}/{INDEX}")
        left = await self._store.list(f"{location}/")
        for one in left:
            await self._store.delete(one.path)
        return len(left)

    async def _put(self, backup: Backup, resource: Resource, body: JsonObject) -> IndexedFile:
        name = body["metadata"]["name"]
        path = f"objects/{resource}/{name}.json"
        sealed = resource == SECRETS
        data = _encoded(body)
        if sealed:
            if self._sealer is None:
                raise ValueError("Secrets are only written sealed")
            held = self._sealer.seal(data, bound_to=self._path(backup, path))
            data = _encoded(_SealedFile(held.key_id, base64.b64encode(held.ciphertext).decode()))
        await self._store.put(self._path(backup, path), data)
        return IndexedFile(path=path, kind=resource.kind, name=name, sha256=sha256(data), size=len(data), sealed=sealed)

    def _object(self, backup: Backup, file: IndexedFile, data: bytes) -> JsonObject:
        if file.sealed:
            data = self._unsealed(backup, file, data)
        try:
            body = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise Unreadable(f"{file.path} is not JSON") from None
        return body

    def _unsealed(self, backup: Backup, file: IndexedFile, data: bytes) -> bytes:
        if self._sealer is None:
            raise Unreadable(f"{file.path} is sealed, and no encryption key is configured")
        try:
            held = msgspec.json.decode(data, type=_SealedFile)
            sealed = Sealed(held.sealed_with, base64.b64decode(held.ciphertext, validate=True))
            return self._sealer.unseal(sealed, bound_to=self._path(backup, file.path))
        except (CannotUnseal, msgspec.MsgspecError, binascii.Error, ValueError):
            raise Unreadable(f"{file.path} is opened by none of the configured encryption keys") from None

    @staticmethod
    def _path(backup: Backup, path: str) -> str:
        return f"{backup.location}/{path}"


def _encoded(value: object) -> bytes:
    """The same value gives the same bytes."""
    return msgspec.json.encode(value, order="deterministic")
