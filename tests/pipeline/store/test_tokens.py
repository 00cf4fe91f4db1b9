from __future__ import annotations

import base64
import json
import threading
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, Conflict, NotFound, StorageError
from pipeline.store import tokens
from pipeline.store.objects import LocalStore, Store

KEY = base64.b64encode(bytes(32)).decode()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path)


def test_a_token_is_found_by_its_text_alone(store: Store) -> None:
    text = tokens.new_token(store, "alice", ["read"], now_s=5.0)
    found = tokens.find_token(store, text)
    assert found is not None
    assert (found.name, found.scopes, found.created_at) == ("alice", {"read"}, 5.0)
    name, _, secret = text.partition(".")
    wrong = ["", name, f"{name}.", f"{name}.{secret[:-1]}", f"{name}.{secret}x", f"bob.{secret}", f".{secret}", secret]
    wrong += [f"../{text}", f"ALICE.{secret}", f"{name}.{secret}\n", f"\ud800.{secret}", f"{name}.\ud800"]
    assert [text for text in wrong if tokens.find_token(store, text) is not None] == []


def test_write_implies_read_and_models_is_apart(store: Store) -> None:
    def allowed(*scopes: str) -> list[str]:
        name = "-".join(scopes)
        token = tokens.find_token(store, tokens.new_token(store, name, scopes, now_s=0.0))
        assert token is not None
        return [scope for scope in tokens.SCOPES if token.allows(scope)]

    assert allowed("read") == ["read"]
    assert allowed("write") == ["read", "write"]
    assert allowed("models") == ["models"]
    assert allowed("read", "models") == ["read", "models"]


def test_no_secret_is_kept(store: Store) -> None:
    secret = tokens.new_token(store, "alice", ["read"], now_s=0.0).partition(".")[2]
    _, key = tokens.new_publisher(store, id="cam", stream="gate", public_key=KEY, now_s=0.0)
    for name in store.list():
        assert secret.encode() not in store.get(name)
        assert key.partition(".")[2].encode() not in store.get(name)
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32


@pytest.mark.parametrize(
    ("name", "scopes"), [("", ["read"]), ("A", ["read"]), ("a/b", ["read"]), ("a", []), ("a", ["all"])]
)
def test_wrong_names_and_scopes_are_told(name: str, scopes: list[str], store: Store) -> None:
    with pytest.raises(ConfigError):
        tokens.new_token(store, name, scopes, now_s=0.0)
    assert store.list() == []


def test_of_two_who_make_a_name_at_once_one_gets_it(store: Store) -> None:
    made: list[str] = []
    refused: list[Conflict] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        try:
            made.append(tokens.new_token(store, "alice", ["read"], now_s=0.0))
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 7)
    assert tokens.find_token(store, made[0]) is not None


def test_a_revoked_token_is_none_and_its_name_is_free(store: Store) -> None:
    first = tokens.new_token(store, "alice", ["read"], now_s=0.0)
    tokens.revoke_token(store, "alice")
    assert tokens.find_token(store, first) is None
    assert tokens.tokens(store) == []
    with pytest.raises(NotFound):
        tokens.revoke_token(store, "alice")
    second = tokens.new_token(store, "alice", ["write"], now_s=0.0)
    assert tokens.find_token(store, first) is None
    assert tokens.find_token(store, second) is not None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"scopes": 3, "created_at": 0, "sha256": ""}', b"\xff"])
def test_a_damaged_token_opens_nothing(content: bytes, store: Store) -> None:
    store.put("service/tokens/alice.json", content)
    with pytest.raises(StorageError):
        tokens.find_token(store, "alice.x")


def test_a_scope_of_a_later_version_is_ignored(store: Store) -> None:
    text = tokens.new_token(store, "alice", ["read"], now_s=0.0)
    kept = json.loads(store.get("service/tokens/alice.json"))
    store.put("service/tokens/alice.json", json.dumps({**kept, "scopes": ["read", "fly"]}).encode())
    found = tokens.find_token(store, text)
    assert found is not None and found.scopes == {"read"}


def test_a_push_key_opens_the_stream_of_its_publisher(store: Store) -> None:
    made, key = tokens.new_publisher(store, id="cam", stream="gate", public_key=KEY, now_s=1.0)
    assert tokens.publishers(store) == [made] == [tokens.publisher(store, "cam")]
    assert tokens.may_push(store, stream="gate", key=key)
    assert not tokens.may_push(store, stream="door", key=key)
    tokens.remove_publisher(store, "cam")
    assert not tokens.may_push(store, stream="gate", key=key)


def test_the_link_key_is_made_once(store: Store) -> None:
    assert tokens.link_key(store) == tokens.link_key(store)
    assert store.put_new(tokens.LINK_KEY, b"other") is False
