"""The secrets file: owner-only, whole or absent, and a chain of signing keys."""

from __future__ import annotations

import errno
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from vl2v_contract.records import SigningKey, head_message, successor_message, verify
from vl2v_vendor.keys.secrets import SecretsError, load_or_create_secrets, rotate_signing_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "vendor-secrets.json"


def test_the_file_is_made_once_and_only_its_owner_can_read_it(path: Path) -> None:
    first = load_or_create_secrets(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = load_or_create_secrets(path)
    assert again.pepper == first.pepper
    assert len(first.pepper) == 32
    assert again.signer().key_id == first.signer().key_id
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    load_or_create_secrets(path)
    path.chmod(0o640)
    with pytest.raises(SecretsError, match="chmod 600"):
        load_or_create_secrets(path)


@pytest.mark.parametrize("mode", [0o440, 0o640, 0o444, 0o460])
@pytest.mark.parametrize("is_own_group", [True, False])
def test_a_mounted_secret_may_be_read_by_the_group_of_the_process_alone(
    path: Path, mode: int, is_own_group: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load_or_create_secrets(path)
    path.chmod(mode)
    group = path.stat().st_gid
    monkeypatch.setattr("os.getegid", lambda: group if is_own_group else group + 1)
    if mode == 0o440 and is_own_group:
        assert load_or_create_secrets(path).pepper == made.pepper
        return
    with pytest.raises(SecretsError, match="can be read by others"):
        load_or_create_secrets(path)


def test_a_mounted_secret_is_not_rotated_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_or_create_secrets(path)

    def refuse(*_paths: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(SecretsError, match="rotate the key where the file is kept"):
        rotate_signing_key(path)
    assert load_or_create_secrets(path).signer().published_keys == made.signer().published_keys


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pepper": "!", "signing_keys": []}', '{"pepper": "", "x": 1}'])
def test_a_broken_file_is_refused_and_left_alone(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(SecretsError, match="restore it from a backup"):
        load_or_create_secrets(path)
    assert path.read_text() == content


def test_two_starts_at_once_agree_on_one_file(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        peppers = set(pool.map(lambda _: load_or_create_secrets(path).pepper, range(8)))
    assert len(peppers) == 1


def test_signing_is_deterministic(path: Path) -> None:
    signer = load_or_create_secrets(path).signer()
    head: dict[str, int | str] = {"seq": 1, "account_id": "a", "entry_hash": "e" * 64, "key_id": signer.key_id}
    signature = signer.sign_head(head)
    signer = load_or_create_secrets(path).signer()
    assert signer.sign_head(head) == signature
    assert verify(signer.published_keys[-1].public_key, head_message(head), signature)


def test_each_successor_is_signed_by_its_predecessor(path: Path) -> None:
    load_or_create_secrets(path)
    rotate_signing_key(path)
    rotate_signing_key(path)
    secrets = load_or_create_secrets(path)
    keys = secrets.signer().published_keys
    assert len(keys) == 3
    assert secrets.signer().key_id == keys[-1].key_id
    assert (keys[0].predecessor_id, keys[-1].retired_at) == (None, None)
    for old, new in pairwise(keys):
        assert (new.predecessor_id, old.retired_at) == (old.key_id, new.created_at)
        assert new.predecessor_signature is not None
        assert verify(old.public_key, successor_message(new.public_key), new.predecessor_signature)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_secret_shows_in_a_repr(path: Path) -> None:
    secrets = load_or_create_secrets(path)
    stored = json.loads(path.read_text())
    shown = repr(secrets)
    assert stored["pepper"] not in shown
    assert repr(secrets.pepper) not in shown
    assert SigningKey.from_seed(secrets.keys[0].key.seed()).key_id in shown
    assert repr(secrets.keys[0].key.seed()) not in shown
