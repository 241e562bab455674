"""The file that keeps compiled kernels: when it is read, when it is not, and how it is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonc.runtime.engines.tensorrt.kernel_cache import (
    CacheKey,
    cache_path,
    decode_cache,
    encode_cache,
    read_cache,
    write_cache,
)

KEY = CacheKey("ab" * 32, "1.7.1.116", "8.9", 13050)
OTHERS = [
    CacheKey("cd" * 32, "1.7.1.116", "8.9", 13050),
    CacheKey("ab" * 32, "1.7.1.117", "8.9", 13050),
    CacheKey("ab" * 32, "1.7.1.116", "8.6", 13050),
    CacheKey("ab" * 32, "1.7.1.116", "8.9", 13040),
]


def test_the_file_lies_beside_the_artifact_and_names_the_gpu(tmp_path: Path) -> None:
    path = cache_path("/models/m.lepton", "tensorrt", KEY)
    assert path.startswith("/models/m.lepton.tensorrt.sm89.")
    assert path.endswith(".rtxcache")
    assert cache_path("m.lepton", "tensorrt", KEY) == path.removeprefix("/models/")
    assert len({cache_path("m", "v", key) for key in (KEY, *OTHERS)}) == 5
    assert cache_path("m", "v", KEY, str(tmp_path)).startswith(f"{tmp_path}/m.v.sm89.")
    assert cache_path("m", "v", KEY, "/x/chosen") == "/x/chosen"


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_what_is_written_is_read(data: bytes) -> None:
    assert decode_cache(encode_cache(data, KEY), KEY) == data
    for other in OTHERS:
        assert decode_cache(encode_cache(data, KEY), other) is None


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_changed_byte_is_noticed(data: bytes, draw: st.DataObject) -> None:
    file = bytearray(encode_cache(data, KEY))
    place = draw.draw(st.integers(0, len(file) - 1))
    file[place] ^= draw.draw(st.integers(1, 255))
    assert decode_cache(bytes(file), KEY) is None
    assert decode_cache(bytes(file[:place]), KEY) is None


def test_a_file_is_written_whole_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "c"
    assert write_cache(str(path), b"one", KEY)
    assert write_cache(str(path), b"two", KEY)
    assert read_cache(str(path), KEY) == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_not_read(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "c"
    write_cache(str(path), b"one", KEY)
    path.chmod(mode)
    assert read_cache(str(path), KEY) is None


def test_a_file_of_another_user_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cache(str(tmp_path / "c"), b"one", KEY)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert read_cache(str(tmp_path / "c"), KEY) is None


def test_links_folders_and_pipes_are_not_read(tmp_path: Path) -> None:
    write_cache(str(tmp_path / "c"), b"one", KEY)
    (tmp_path / "link").symlink_to(tmp_path / "c")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "absent", "."):
        assert read_cache(str(tmp_path / name), KEY) is None


def test_a_place_that_refuses_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert not write_cache(str(tmp_path / "folder"), b"one", KEY)
    assert not write_cache(str(tmp_path / "absent" / "c"), b"one", KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
