"""Implements backups' ObjectStore over one prefix of a folder or bucket."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import ObjectStore as Vendor
from obstore.store import from_url

from opsapi.backups.ports import Missing, Stored
from opsapi.backups.settings import BackupStoreSettings
from opsapi.kit.errors import DependencyUnavailable

COMPONENT = "backup_store"
_RETRIES = 2
_SCHEMES = ("file", "s3", "gs", "az", "abfs", "abfss")
_CHUNK = 1000


class BucketStore:
    """Raises ValueError for a URL that names no store."""

    def __init__(self, settings: BackupStoreSettings) -> None:
        self._store = _opened(settings)

    async def put(self, path: str, data: bytes) -> None:
        async with _answering():
            await obstore.put_async(self._store, path, data)

    async def get(self, path: str) -> bytes:
        try:
            async with _answering():
                found = await obstore.get_async(self._store, path)
                return bytes(await found.bytes_async())
        except FileNotFoundError:
            raise Missing(path) from None

    async def list(self, prefix: str) -> Sequence[Stored]:
        found: list[Stored] = []
        try:
            async with _answering():
                async for chunk in obstore.list(self._store, prefix.rstrip("/"), chunk_size=_CHUNK):
                    found += [Stored(one["path"], one["size"]) for one in chunk]
        except FileNotFoundError:
            return []
        return sorted(found)

    async def delete(self, path: str) -> None:
        try:
            async with _answering():
                await obstore.delete_async(self._store, path)
        except FileNotFoundError:
            return


def _opened(settings: BackupStoreSettings) -> Vendor:
    scheme = settings.url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise ValueError(
            f"{settings.url!r} is no store; it begins with one of {', '.join(f'{s}://' for s in _SCHEMES)}"
        )
    try:
        if scheme == "file":
            return from_url(settings.url, mkdir=True)
        timeout = timedelta(seconds=settings.timeout_seconds)
        return from_url(
            settings.url,
            config=_s3(settings) if scheme == "s3" else None,
            client_options={"allow_http": settings.allow_http, "timeout": timeout, "connect_timeout": timeout},
            retry_config={"max_retries": _RETRIES, "retry_timeout": timeout},
        )
    except (exceptions.BaseError, OSError) as error:
        raise ValueError(f"{settings.url!r} cannot be opened: {_words(error)}") from None


def _s3(settings: BackupStoreSettings) -> Any:
    given: dict[str, Any] = {"region": settings.region or "us-east-1"}
    if settings.endpoint:
        given["endpoint"] = settings.endpoint
    if settings.access_key_id is not None:
        given["access_key_id"] = settings.access_key_id.reveal()
    if settings.secret_access_key is not None:
        given["secret_access_key"] = settings.secret_access_key.reveal()
    return given


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """FileNotFoundError passes; the store's words may name hosts and paths, so they stay in the cause, for the log."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
        raise DependencyUnavailable(COMPONENT, "it refuses the credentials") from error
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise DependencyUnavailable(COMPONENT, "it cannot be reached or refuses") from error


def _words(error: Exception) -> str:
    """The first line; the rest is the library's own debugging."""
    return str(error).splitlines()[0][:200]
