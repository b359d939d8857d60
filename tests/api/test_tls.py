"""TLS on a real socket."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from opsapi.http.server import HttpServer
from opsapi.http.settings import TlsSettings
from opsapi.http.tls import TlsUnusable, server_context
from support.http import Raw, Served, parse_answers, request, served, world


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        certificate = self._built(self._name, self._key, is_authority=True)
        self.path = folder / "ca.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _built(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, name: str, password: bytes | None = None) -> tuple[Path, Path]:
        """Certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._folder / f"{name}.pem"
        certificate.write_bytes(self._built(subject, key, is_authority=False).public_bytes(serialization.Encoding.PEM))
        private = self._folder / f"{name}.key"
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        private.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return certificate, private


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def secured(authority: Authority, **more: Any) -> AsyncIterator[Served]:
    certificate, key = authority.issue("server")
    w = world(tls=TlsSettings(certificate=certificate, private_key=key, **more))
    async with served(w.app(), w.settings) as server:
        yield server


def client(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.path))


async def ask(server: Served, context: ssl.SSLContext) -> tuple[Raw, str | None, str]:
    reader, writer = await asyncio.open_connection(*server.address, ssl=context)
    try:
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        writer.write(request())
        [answer] = parse_answers(await reader.readuntil(b"\r\n\r\n"))
        cipher = connection.cipher()
        assert cipher is not None
        return answer, connection.version(), cipher[0]
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_tls_is_served_with_hsts(authority: Authority) -> None:
    async with secured(authority) as server:
        answer, version, _ = await ask(server, client(authority))
    assert server.url.startswith("https://127.0.0.1:")
    assert (answer.status, version) == (200, "TLSv1.3")
    assert "max-age=" in answer.headers["strict-transport-security"]


async def test_tls_1_2_offers_only_forward_secret_authenticated_ciphers(authority: Authority) -> None:
    context = client(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with secured(authority) as server:
        answer, version, cipher = await ask(server, context)
        context.set_ciphers("AES128-SHA:AES256-SHA256:ECDHE-ECDSA-AES128-SHA256")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(server, context)
    assert (answer.status, version) == (200, "TLSv1.2")
    assert cipher.startswith("ECDHE-")
    assert "GCM" in cipher or "CHACHA20" in cipher


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_below_1_2_is_refused(authority: Authority) -> None:
    context = client(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with secured(authority) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(server, context)


async def test_the_minimum_can_be_tls_1_3(authority: Authority) -> None:
    context = client(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with secured(authority, minimum_version="1.3") as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(server, context)


async def test_with_a_client_authority_only_its_clients_are_served(authority: Authority) -> None:
    known, stranger = client(authority), client(authority)
    known.load_cert_chain(*authority.issue("client"))
    async with secured(authority, client_ca=authority.path) as server:
        answer, _, _ = await ask(server, known)
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask(server, stranger)
    assert answer.status == 200


async def test_plain_http_on_a_tls_port_gets_no_answer(authority: Authority) -> None:
    async with secured(authority) as server:
        assert await server.exchange(request()) == []


def test_unusable_files_are_named_with_what_is_wrong(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("server")
    other_key = authority.issue("other")[1]
    locked = authority.issue("locked", b"password")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("hello")
    for settings, hint in (
        (TlsSettings(certificate=tmp_path / "none.pem", private_key=key), "http.tls.certificate"),
        (TlsSettings(certificate=certificate, private_key=tmp_path / "none.key"), "http.tls.private_key"),
        (TlsSettings(certificate=certificate, private_key=other_key), "other.key"),
        (TlsSettings(certificate=locked[0], private_key=locked[1]), "unencrypted"),
        (TlsSettings(certificate=nonsense, private_key=key), "nonsense.pem"),
        (TlsSettings(certificate=certificate, private_key=key, client_ca=nonsense), "http.tls.client_ca"),
    ):
        with pytest.raises(TlsUnusable, match=hint):
            server_context(settings)
        w = world(tls=settings)
        app = w.app()
        with pytest.raises(TlsUnusable):
            HttpServer(app, w.settings)
