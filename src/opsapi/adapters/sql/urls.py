"""Database URLs as people write them, turned into what the drivers take."""

import ssl
from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_TLS_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
_TLS_KEYS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_HINT = "write sqlite:///path/to/file or postgresql://user@host/name?sslmode=verify-full&sslrootcert=/path/to/ca.pem"


def normal_url(text: str) -> URL:
    """`sqlite:///file` or `postgresql://…` with the driver that we use. Raises ValueError, without the password."""
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):
        raise ValueError(f"not a database URL ({_HINT})") from None
    backend = url.drivername.partition("+")[0]
    if backend not in _DRIVERS:
        raise ValueError(f"database engine {backend!r} is not supported ({_HINT})")
    if backend == "sqlite":
        _check_sqlite(url)
    else:
        _check_postgresql(url)
    return url.set(drivername=_DRIVERS[backend])


def _check_sqlite(url: URL) -> None:
    if url.database in (None, "", ":memory:"):
        raise ValueError("SQLite needs a file: its state must outlive the process")
    if url.query or str(url.database).startswith("file:"):
        raise ValueError("SQLite takes a plain path, without options")


def _check_postgresql(url: URL) -> None:
    unknown = sorted(set(url.query) - {"host", *_TLS_KEYS})
    if unknown:
        raise ValueError(f"the URL's option {unknown[0]!r} is not known; allowed: host, {', '.join(_TLS_KEYS)}")
    mode = url.query.get("sslmode", "prefer")
    if mode not in _TLS_MODES:
        raise ValueError(f"sslmode={mode} is not known; allowed: {', '.join(_TLS_MODES)}")
    if "sslrootcert" not in url.query and mode == "verify-ca":
        raise ValueError("sslmode=verify-ca needs sslrootcert")


def without_tls_options(url: URL) -> URL:
    """For the driver, which takes them as an argument of its own."""
    return url.difference_update_query(_TLS_KEYS)


def tls_of(url: URL) -> Any:
    """asyncpg's `ssl` argument for libpq's options: a mode where nothing is verified, else a context.

    Raises ValueError where a file cannot be read.
    """
    given = {key: str(value) for key, value in url.query.items()}
    mode = given.get("sslmode", "prefer")
    if mode in ("disable", "prefer", "require") and "sslcert" not in given and "sslrootcert" not in given:
        return mode
    try:
        context = ssl.create_default_context(cafile=given.get("sslrootcert"))
        if "sslcert" in given:
            context.load_cert_chain(given["sslcert"], given.get("sslkey"))
    except OSError as error:
        raise ValueError(f"a certificate file of the database's URL cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # As libpq does: a root certificate given is always checked, the host's name with verify-full alone.
    context.check_hostname = mode == "verify-full"
    if mode not in ("verify-ca", "verify-full") and "sslrootcert" not in given:
        context.verify_mode = ssl.CERT_NONE
    return context
