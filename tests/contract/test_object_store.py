"""Bytes by path: in a folder, in a bucket of a real S3 server, and in the tests' fake."""

from collections.abc import Callable
from pathlib import Path

import pytest

from opsapi.adapters.objectstore.store import BucketStore
from opsapi.backups.ports import Missing, ObjectStore, Stored
from opsapi.backups.settings import BackupStoreSettings
from opsapi.kit.errors import DependencyUnavailable
from support.backup_stores import FakeStore
from support.s3_server import S3Server, s3

__all__ = ["s3"]


@pytest.fixture(params=["fake", "folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "fake":
        return FakeStore()
    if request.param == "folder":
        return BucketStore(BackupStoreSettings(url=f"file://{tmp_path}/with spaces/backups"))
    server: S3Server = request.getfixturevalue("s3")
    return BucketStore(server.settings())


async def test_what_was_put_is_got_to_the_last_byte(store: ObjectStore) -> None:
    data = bytes(range(256)) * 1000
    await store.put("ws-1/backup-1/objects/a.json", data)
    assert await store.get("ws-1/backup-1/objects/a.json") == data


async def test_an_empty_file_is_a_file(store: ObjectStore) -> None:
    await store.put("ws-1/backup-1/empty.json", b"")
    assert await store.get("ws-1/backup-1/empty.json") == b""


async def test_a_put_replaces_what_was_there(store: ObjectStore) -> None:
    await store.put("a/b.json", b"the first and longer text")
    await store.put("a/b.json", b"the second")
    assert await store.get("a/b.json") == b"the second"
    assert list(await store.list("a")) == [Stored("a/b.json", 10)]


async def test_what_was_never_put_is_missing(store: ObjectStore) -> None:
    with pytest.raises(Missing):
        await store.get("a/nothing.json")


async def test_a_list_names_what_lies_below_the_prefix_alone_in_the_order_of_paths(store: ObjectStore) -> None:
    for path in ("a/2.json", "a/deep/er/1.json", "a/1.json", "ab/1.json", "b/1.json"):
        await store.put(path, path.encode())
    expected = [Stored("a/1.json", 8), Stored("a/2.json", 8), Stored("a/deep/er/1.json", 16)]
    assert list(await store.list("a/")) == expected
    assert list(await store.list("a")) == expected
    assert list(await store.list("nowhere")) == []


async def test_names_of_kubernetes_objects_are_paths(store: ObjectStore) -> None:
    for path in ("ws-1/b/objects/services/web.v2-canary.json", "ws-1/b/objects/deployments.apps/web.json"):
        await store.put(path, b"{}")
    assert [one.path for one in await store.list("ws-1/b")] == [
        "ws-1/b/objects/deployments.apps/web.json",
        "ws-1/b/objects/services/web.v2-canary.json",
    ]


async def test_deleting_twice_is_deleting_once(store: ObjectStore) -> None:
    await store.put("a/b.json", b"x")
    await store.delete("a/b.json")
    await store.delete("a/b.json")
    with pytest.raises(Missing):
        await store.get("a/b.json")


@pytest.mark.slow
async def test_more_than_one_page_is_listed_whole(store: ObjectStore) -> None:
    for number in range(1100):
        await store.put(f"many/{number:04}.json", b"1")
    assert len(await store.list("many")) == 1100


def _without_server(server: S3Server) -> BackupStoreSettings:
    settings = server.settings()
    return BackupStoreSettings(
        url=settings.url,
        endpoint="http://127.0.0.1:9",
        access_key_id=settings.access_key_id,
        secret_access_key=settings.secret_access_key,
        allow_http=True,
        timeout_seconds=1,
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (lambda server: server.settings(secret="wrong"), "refuses"),
        (_without_server, "cannot be reached or refuses"),
    ],
)
async def test_a_store_that_refuses_or_is_away_is_a_dependency_and_tells_no_secret(
    s3: S3Server, settings: Callable[[S3Server], BackupStoreSettings], said: str
) -> None:
    store = BucketStore(settings(s3))
    with pytest.raises(DependencyUnavailable) as caught:
        await store.put("a/b.json", b"x")
    assert said in caught.value.message
    assert "127.0.0.1" not in caught.value.message
    with pytest.raises(DependencyUnavailable):
        await store.get("a/b.json")


@pytest.mark.parametrize("url", ["", "ftp://host/folder", "/a/plain/path", "memory:///"])
def test_a_url_that_names_no_store_is_refused_with_what_is_allowed(url: str) -> None:
    with pytest.raises(ValueError, match="is no store; it begins with one of file://, s3://"):
        BucketStore(BackupStoreSettings(url=url))
