"""A certificate that this machine makes for itself, so that programs here can speak to jand over TLS. Nobody else vouches for it: clients are told to trust this file."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from jand.errors import FileTakenError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
LONGEST_DAYS: Final = 825
"""Apple's systems trust no certificate that is good for longer, own ones included."""

HOST_NAME: Final = re.compile(r"(?:\*\.)?[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")


@dataclass(frozen=True, slots=True)
class Made:
    """Where the certificate and its key lie, for which *names* it is good and until when; *fingerprint* is its SHA-256."""

    cert: Path
    key: Path
    names: tuple[str, ...]
    until: datetime.datetime
    fingerprint: str


def make(directory: Path, names: Iterable[str] = (), *, days: int = LONGEST_DAYS, replace: bool = False) -> Made:
    """Write `tls.crt` and `tls.key`, which only its owner may read, into *directory*; good for this machine's loopback names and *names* beside them.

    Raises FileTakenError where one is there and *replace* is not set, SettingsError where it cannot be written or a name cannot be one.
    """
    cert_path, key_path = directory / "tls.crt", directory / "tls.key"
    if not replace:
        for path in (cert_path, key_path):
            if path.exists() or path.is_symlink():
                raise FileTakenError(f"cannot write {path}: it exists", hint="add --replace to make a new one")
    known = tuple(dict.fromkeys([*LOOPBACK, *names]))
    key = ec.generate_private_key(ec.SECP256R1())
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    certificate = sign(key, [general_name(name) for name in known], until)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(key_path, secret, 0o600)
        write(cert_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError as error:
        raise SettingsError(
            f"cannot write {error.filename or directory}: {(error.strerror or '').lower()}",
            hint="name another folder with --into",
        ) from error
    return Made(cert_path, key_path, known, until, certificate.fingerprint(hashes.SHA256()).hex(":").upper())


def sign(key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName], until: datetime.datetime) -> x509.Certificate:
    """Return a certificate that *key* signs for itself, for a server and no authority: who trusts it trusts this server and nothing that it might sign."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"jand on {socket.gethostname()}"[:64])])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        ascii_name = name.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_name = ""
    if not HOST_NAME.fullmatch(ascii_name):
        raise SettingsError(f"cannot make a certificate for {name!r}: it is no host name", hint="correct --name")
    return x509.DNSName(ascii_name)


def write(path: Path, content: bytes, mode: int) -> None:
    """Write *path* with *mode* from its first instant, in place of what is there and never through a link."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
