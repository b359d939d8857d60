"""The server's TLS context: what uvicorn's own options cannot say."""

import ssl

from opsapi.http.settings import TlsSettings

_TLS12_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secrecy and authenticated encryption only; TLS 1.3's suites are all of that kind."""


class TlsUnusable(Exception):
    """The certificate, its key or the client CA cannot be used; the message says which and why."""


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Raises TlsUnusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if settings.minimum_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    for name, path in (("certificate", settings.certificate), ("private_key", settings.private_key)):
        if not path.is_file():
            raise TlsUnusable(f"http.tls.{name}: there is no file {path}")
    try:
        context.load_cert_chain(settings.certificate, settings.private_key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise TlsUnusable(
            f"http.tls: {settings.certificate} and {settings.private_key} are not a PEM certificate and its "
            f"unencrypted key ({_reason(error)})"
        ) from None
    if settings.client_ca is not None:
        try:
            context.load_verify_locations(settings.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise TlsUnusable(f"http.tls.client_ca: {settings.client_ca} cannot be read ({_reason(error)})") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
