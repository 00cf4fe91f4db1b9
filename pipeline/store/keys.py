"""Ed25519 keys by which publishers sign models: the private one a PEM file (PKCS #8), the public one base64.

The private key stays with the publisher; `openssl genpkey -algorithm ed25519` makes the same kind of file. The service
knows the public one only (`POST /v1/publishers`).
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from pipeline.errors import ConfigError, StorageError, Unreachable

_PUBLIC_KEY_BYTES = 32


def new_key(path: Path) -> Ed25519PrivateKey:
    """Make a key and write it to `path`, readable by its owner only; return it.

    Raises:
        StorageError: it cannot be written, or something is there: a key that is lost cannot be made again.
    """
    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise StorageError(
            f"the key cannot be written: {error.strerror}", where=str(path), hint="name a file that is not there yet"
        ) from error
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a file.

    Raises:
        Unreachable: it cannot be read.
        ConfigError: it holds no Ed25519 key, or one behind a password.
    """
    hint = "make one: limpid key new"
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise Unreachable(f"cannot be read: {error.strerror}", where=str(path), hint=hint) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("this is no private key without a password", where=str(path), hint=hint) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("this is a key of another kind than Ed25519", where=str(path), hint=hint)
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """Return the public key of a private one, base64 of its 32 bytes, as `POST /v1/publishers` takes it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def public_key(text: str) -> Ed25519PublicKey:
    """Return the public key that is written as base64. Raises ConfigError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != _PUBLIC_KEY_BYTES:
        raise ConfigError(f"'{text}' is no Ed25519 key", where="key", hint="give base64 of its 32 bytes")
    return Ed25519PublicKey.from_public_bytes(data)
