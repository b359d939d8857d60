"""PostgreSQL over TLS: libpq's options of the URL mean what they mean elsewhere."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.urls import normal_url, tls_of
from opsapi.kit.errors import DependencyUnavailable
from support.database import PostgresServer

pytestmark = pytest.mark.postgres
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""PostgreSQL's protocol, "SSLRequest": the length, and a number that is no protocol version."""


def _certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for the address 127.0.0.1, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


class TlsFront:
    """Speaks PostgreSQL's TLS negotiation in front of a server that cannot, as a pooler or a cloud's proxy does.

    `encrypted` holds, per connection that got past the handshake, whether it asked for TLS.
    """

    def __init__(self, context: ssl.SSLContext, behind: str) -> None:
        self._context = context
        self._behind = behind
        self.encrypted: list[bool] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ends with the client; what the client breaks off, for example for a certificate, is its own affair."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(8)
            asks = first == SSL_REQUEST
            if asks:
                writer.write(b"S")
                await writer.start_tls(self._context)
                first = b""
            self.encrypted.append(asks)
            inner_reader, inner_writer = await asyncio.open_unix_connection(self._behind)
            inner_writer.write(first)
            await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))
        writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Front:
    def __init__(self, front: TlsFront, port: int, folder: Path) -> None:
        self.front = front
        self.authority = folder / "server.pem"
        self.stranger = folder / "stranger.pem"
        self._port = port

    async def connect(self, host: str, options: str) -> list[bool]:
        """Whether each connection that could be used was encrypted."""
        self.front.encrypted.clear()
        database = Database(f"postgresql://postgres@{host}:{self._port}/opsapi_template?{options}")
        try:
            assert (await database.probe()).engine == "postgresql"
        finally:
            await database.close()
        return self.front.encrypted


@pytest.fixture
async def front(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Front]:
    certificate, _ = _certificate(tmp_path, "server"), _certificate(tmp_path, "stranger")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    behind = TlsFront(context, f"{postgres.socket_directory}/.s.PGSQL.5432")
    server = await asyncio.start_server(behind.serve, "127.0.0.1", 0)
    yield Front(behind, server.sockets[0].getsockname()[1], tmp_path)
    server.close()


async def test_modes_that_verify_nothing_encrypt_all_the_same(front: Front) -> None:
    assert await front.connect("127.0.0.1", "sslmode=require") == [True]
    assert await front.connect("127.0.0.1", "sslmode=prefer") == [True]
    assert await front.connect("127.0.0.1", "sslmode=disable") == [False]


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full", "require"])
async def test_a_given_root_certificate_is_checked(front: Front, mode: str) -> None:
    assert await front.connect("127.0.0.1", f"sslmode={mode}&sslrootcert={front.authority}") == [True]
    with pytest.raises(DependencyUnavailable):
        await front.connect("127.0.0.1", f"sslmode={mode}&sslrootcert={front.stranger}")


async def test_verify_full_checks_the_hosts_name_and_verify_ca_does_not(front: Front) -> None:
    root = f"sslrootcert={front.authority}"
    assert await front.connect("localhost", f"sslmode=verify-ca&{root}") == [True]
    with pytest.raises(DependencyUnavailable):
        await front.connect("localhost", f"sslmode=verify-full&{root}")


async def test_verify_full_without_a_root_trusts_the_systems_only(front: Front) -> None:
    with pytest.raises(DependencyUnavailable):
        await front.connect("127.0.0.1", "sslmode=verify-full")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("sslmode=sometimes", "allowed: disable"),
        ("sslmode=verify-ca", "needs sslrootcert"),
        ("user_agent=x", "is not known"),
    ],
)
def test_options_that_are_not_known_are_refused_with_what_is_allowed(options: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        normal_url(f"postgresql://u:secret@h/d?{options}")


def test_a_certificate_file_that_is_not_there_is_named_and_the_password_is_not() -> None:
    url = normal_url("postgresql://u:secret@h/d?sslmode=verify-full&sslrootcert=/no/such.pem")
    with pytest.raises(ValueError, match="certificate file") as caught:
        tls_of(url)
    assert "secret" not in str(caught.value)
