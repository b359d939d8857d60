"""Manifests in the store: what was written is got back, and whatever was altered is found."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from opsapi.adapters.secrets.sealing import AesGcmSealer
from opsapi.backups import kinds
from opsapi.backups.archive import Archive, Unreadable, Written
from opsapi.backups.model import Backup, LeftOut, Status, Volume
from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.writing import JsonObject, Resource
from support.acting import NOON
from support.backup_stores import FakeStore, make_backup

SEALER = AesGcmSealer([b"a" * 32])


def body(resource: Resource, name: str, **fields: Any) -> tuple[Resource, JsonObject]:
    named = {"apiVersion": resource.api_version, "kind": resource.kind}
    return resource, named | {"metadata": {"name": name, "namespace": "shop"}} | fields


OBJECTS = [
    body(kinds.DEPLOYMENTS, "web", spec={"replicas": 3}),
    body(kinds.CONFIG_MAPS, "settings", data={"ü": "ß\n"}),
    body(kinds.SECRETS, "keys", data={"p": "c2VjcmV0LXRleHQ="}),
    body(kinds.INGRESSES, "web", spec={}),
]


async def written(store: FakeStore, objects: Any = None, archive: Archive | None = None) -> tuple[Backup, Written]:
    backup = make_backup(status=Status.COMPLETED)
    done = await (archive or Archive(store, SEALER)).write(
        backup,
        OBJECTS if objects is None else objects,
        volumes=[Volume(claim="data", size="1Gi", captured=True)],
        left_out=[LeftOut("Secret", "x", "off")],
        cluster_version="1.36.0",
        at=NOON,
    )
    return replace(backup, checksum=done.checksum), done


async def test_what_was_written_is_got_back_in_the_order_of_creation() -> None:
    store = FakeStore()
    backup, done = await written(store)
    archive = Archive(store, SEALER)
    checked = await archive.check(backup)
    assert checked.damage == []
    assert checked.size == done.size == sum(len(data) for data in store.held.values())
    assert archive.objects(backup, checked) == [OBJECTS[2], OBJECTS[1], OBJECTS[0], OBJECTS[3]]
    assert checked.index is not None
    assert (checked.index.cluster_version, checked.index.format) == ("1.36.0", 1)
    assert checked.index.left_out == [LeftOut("Secret", "x", "off")]


async def test_the_index_is_written_last_and_removed_first() -> None:
    store = FakeStore()
    backup, _ = await written(store)
    assert store.puts[-1] == "ws-123/backup-1/index.json"
    assert await Archive(store, SEALER).erase(backup.location) == len(OBJECTS)
    assert store.held == {}


async def test_a_secret_leaves_sealed_and_no_byte_of_it_is_readable() -> None:
    store = FakeStore()
    await written(store)
    stored = store.held["ws-123/backup-1/objects/secrets/keys.json"]
    assert b"c2VjcmV0" not in stored
    assert b"data" not in stored
    assert not any(b"c2VjcmV0" in data for data in store.held.values())


async def test_without_a_key_no_secret_is_written() -> None:
    store = FakeStore()
    with pytest.raises(ValueError, match="only written sealed"):
        await written(store, archive=Archive(store, None))
    assert "ws-123/backup-1/index.json" not in store.held


@pytest.mark.parametrize("sealer", [None, AesGcmSealer([b"b" * 32])])
async def test_without_its_key_a_backup_cannot_be_read_but_can_be_verified(sealer: AesGcmSealer | None) -> None:
    store = FakeStore()
    backup, _ = await written(store)
    archive = Archive(store, sealer)
    checked = await archive.check(backup)
    assert checked.damage == []
    with pytest.raises(Unreadable, match=r"objects/secrets/keys\.json"):
        archive.objects(backup, checked)


async def test_a_sealed_file_of_another_backup_does_not_open_here() -> None:
    store = FakeStore()
    first, _ = await written(store)
    other = replace(first, id="backup-2", location="ws-123/backup-2")
    archive = Archive(store, SEALER)
    for path, data in list(store.held.items()):
        store.held[path.replace("backup-1", "backup-2")] = data
    checked = await archive.check(first)
    with pytest.raises(Unreadable):
        archive.objects(other, checked)


INDEX = "ws-123/backup-1/index.json"
FILES = [
    "ws-123/backup-1/objects/deployments.apps/web.json",
    "ws-123/backup-1/objects/configmaps/settings.json",
    "ws-123/backup-1/objects/secrets/keys.json",
]


@pytest.mark.parametrize("path", FILES)
async def test_a_flipped_bit_is_found_and_named(path: str) -> None:
    store = FakeStore()
    backup, _ = await written(store)
    store.flip(path, len(store.held[path]) // 2)
    checked = await Archive(store, SEALER).check(backup)
    assert checked.damage == [f"{path.removeprefix('ws-123/backup-1/')} is not what was written"]


@pytest.mark.parametrize("path", FILES)
async def test_a_missing_file_is_found_and_named(path: str) -> None:
    store = FakeStore()
    backup, _ = await written(store)
    del store.held[path]
    assert (await Archive(store, SEALER).check(backup)).damage == [
        f"{path.removeprefix('ws-123/backup-1/')} is missing"
    ]


@pytest.mark.parametrize("cut", [0, 1, 20])
async def test_a_cut_or_altered_index_is_damage_whole(cut: int) -> None:
    store = FakeStore()
    backup, _ = await written(store)
    store.held[INDEX] = store.held[INDEX][: -cut or None] + (b"" if cut else b" ")
    checked = await Archive(store, SEALER).check(backup)
    assert checked.index is None
    assert checked.damage == ["the index is not the one that was written"]


async def test_an_index_that_agrees_with_altered_files_is_found_by_the_databases_checksum() -> None:
    """Whoever can write to the store alone makes a backup that is whole in itself, and not this one."""
    store = FakeStore()
    backup, _ = await written(store)
    await written(store, [body(kinds.DEPLOYMENTS, "web", spec={"replicas": 3, "image": "evil"})])
    checked = await Archive(store, SEALER).check(backup)
    assert checked.damage == ["the index is not the one that was written"]


async def test_a_missing_index_is_no_backup() -> None:
    store = FakeStore()
    backup, _ = await written(store)
    del store.held[INDEX]
    assert (await Archive(store, SEALER).check(backup)).damage == ["the index is missing"]
    assert await Archive(store, SEALER).found(backup) is None


async def test_a_finished_try_is_found_and_a_half_finished_one_is_not() -> None:
    store = FakeStore()
    backup, done = await written(store)
    assert await Archive(store, SEALER).found(backup) == done
    store.flip(FILES[0])
    assert await Archive(store, SEALER).found(backup) is None


async def test_a_second_try_that_dies_half_way_leaves_no_index_of_the_first() -> None:
    store = FakeStore()
    await written(store)
    put = store.put

    async def dying(path: str, data: bytes) -> None:
        if path.endswith("deployments.apps/web.json"):
            raise DependencyUnavailable("backup_store", "it died")
        await put(path, data)

    store.put = dying  # type: ignore[method-assign]
    with pytest.raises(DependencyUnavailable):
        await written(store)
    assert INDEX not in store.held


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?)?", fullmatch=True)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
MANIFESTS = st.lists(
    st.tuples(st.sampled_from(kinds.RESTORE_ORDER), NAMES, st.dictionaries(st.text(max_size=8), VALUES, max_size=4)),
    max_size=8,
    unique_by=lambda one: (one[0], one[1]),
)


@settings(max_examples=50)
@given(MANIFESTS)
async def test_any_objects_come_back_equal_and_damage_none(given_objects: Any) -> None:
    objects = [body(resource, name, spec=spec) for resource, name, spec in given_objects]
    store = FakeStore()
    backup, _ = await written(store, objects)
    archive = Archive(store, SEALER)
    checked = await archive.check(backup)
    assert checked.damage == []
    got = archive.objects(backup, checked)
    assert sorted(got, key=repr) == sorted(objects, key=repr)


@settings(max_examples=100)
@given(st.data())
async def test_any_flipped_bit_in_any_file_is_damage(data: st.DataObject) -> None:
    store = FakeStore()
    backup, _ = await written(store)
    path = data.draw(st.sampled_from(sorted(store.held)))
    at = data.draw(st.integers(0, len(store.held[path]) - 1))
    store.flip(path, at)
    assert (await Archive(store, SEALER).check(backup)).damage
