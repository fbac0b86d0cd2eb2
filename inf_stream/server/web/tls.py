"""TLS for the server: the operator's certificate, or one made at the start."""

import datetime
import ipaddress
import socket
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from inf_stream.base.config import ServerSettings
from inf_stream.base.errors import ConfigError
from inf_stream.server.web.listening import addresses_elsewhere

_VALID_DAYS = 365


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """What the settings ask for; None is plain TCP.

    Raises:
        ConfigError: both kinds of certificate are asked for, or a key without one; or a file cannot be read or holds
            something else.
    """
    if settings.self_signed and settings.certificate:
        raise ConfigError("both server.certificate and server.self_signed are set; choose one")
    if settings.certificate_key and not settings.certificate:
        raise ConfigError("server.certificate_key is set, but server.certificate is not; name both (--certificate)")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.self_signed:
        with tempfile.TemporaryDirectory(prefix="inf-stream-") as folder:
            path = Path(folder) / "certificate.pem"
            path.touch(mode=0o600)
            path.write_bytes(self_signed_certificate(settings.host))
            context.load_cert_chain(path)
        return context
    if not settings.certificate:
        return None
    try:
        context.load_cert_chain(settings.certificate, settings.certificate_key or None, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        why = "it is no PEM certificate with its key" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(
            f"certificate '{settings.certificate}' cannot be used: {why}; server.certificate names the certificate, "
            "server.certificate_key its key, unencrypted"
        ) from error
    return context


def self_signed_certificate(host: str) -> bytes:
    """A new key and a certificate for it (PEM, both): for this machine's names, and `host` or what it stands for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "inf-stream")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret + certificate.public_bytes(serialization.Encoding.PEM)


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for known in dict.fromkeys(("localhost", "127.0.0.1", "::1", socket.gethostname(), *addresses_elsewhere(host))):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(known)))
        except ValueError:  # noqa: PERF203
            if known.isascii() and known:
                names.append(x509.DNSName(known))
    return names


def _no_password() -> str:
    return ""
