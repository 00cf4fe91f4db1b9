"""pipeline.store.keys: a key that is made is found again, and nothing else is one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipeline.errors import ConfigError, StorageError, Unreachable
from pipeline.store import keys
from tests.live_peers import program


def test_a_key_is_kept_to_its_owner_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "cam.pem"
    made = keys.new_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.public_text(keys.load_key(path)) == keys.public_text(made)
    keys.public_key(keys.public_text(made)).verify(made.sign(b"x"), b"x")
    with pytest.raises(StorageError, match="cannot be written"):
        keys.new_key(path)


def test_a_key_of_openssl_is_one_too(tmp_path: Path) -> None:
    path = tmp_path / "openssl.pem"
    openssl = program("openssl", "openssl")
    subprocess.run([openssl, "genpkey", "-algorithm", "ed25519", "-out", path], check=True, timeout=20)
    assert len(keys.public_text(keys.load_key(path))) == 44


def test_what_is_no_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no key")
    with pytest.raises(ConfigError, match="no private key"):
        keys.load_key(tmp_path / "bad.pem")
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "other.pem").write_bytes(other)
    with pytest.raises(ConfigError, match="another kind than Ed25519"):
        keys.load_key(tmp_path / "other.pem")
    with pytest.raises(Unreachable):
        keys.load_key(tmp_path / "absent.pem")
    for text in ("", "abc", "é" * 44, "A" * 40):
        with pytest.raises(ConfigError, match="no Ed25519 key"):
            keys.public_key(text)
