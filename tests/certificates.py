"""An authority of the tests' own, certificates that it signs, as PEM files, and a server that shows one."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_NOW = datetime.now(UTC)
_DAY = timedelta(days=1)


class Authority:
    """Signs servers' certificates; `path` is the file of its own one, which whoever trusts it names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Tests' authority")
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        usage = {
            "digital_signature": False, "content_commitment": False, "key_encipherment": False,
            "data_encipherment": False, "key_agreement": False, "key_cert_sign": True, "crl_sign": True,
            "encipher_only": False, "decipher_only": False,
        }  # fmt: skip
        certificate = (
            _builder(self._name, self._key, until=_NOW + _DAY)
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.path = folder / "authority.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str, days: int = 1) -> Path:
        """Return a file with the key and the certificate of a server of these names and addresses.

        Args:
            days: until it expires; negative ones have passed.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier)
        certificate = (
            _builder(_name(names[0]), key, until=_NOW + days * _DAY)
            .issuer_name(self._name)
            .add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{certificate.serial_number}.pem"
        private = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
        path.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
        return path


@contextlib.contextmanager
def serving(pem: Path, talk: Callable[[ssl.SSLSocket], object]) -> Iterator[int]:
    """A TLS server on 127.0.0.1 that shows the certificate of a file; what comes behind a handshake is `talk`'s."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with contextlib.suppress(OSError), context.wrap_socket(peer, server_side=True) as sock:
                        talk(sock)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _builder(name: x509.Name, key: ec.EllipticCurvePrivateKey, *, until: datetime) -> x509.CertificateBuilder:
    made = x509.CertificateBuilder().subject_name(name).public_key(key.public_key())
    return made.serial_number(x509.random_serial_number()).not_valid_before(_NOW - 30 * _DAY).not_valid_after(until)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
