"""Keeps the kernels that TensorRT-RTX compiled on this machine, so that the next start is fast.

A cache is native code, and no digest in an artifact vouches for it. So a file is read only if it
belongs to this user, nobody else can write it, and its own digest is right; and it is only ever a
gain of time: whatever is wrong with it, the engine compiles its kernels again.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

_MAGIC = b"\x93LEPTONCACHE\x01"
_DIGEST = 32
_MAX_BYTES = 1 << 32
SUFFIX = ".rtxcache"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class CacheKey:
    """What a cache is good for.

    Attributes:
        plan: The SHA-256 of the plan, in hexadecimal.
        engine: The version of the engine.
        capability: The compute capability of the GPU.
        driver: The newest CUDA that the driver supports, as CUDA numbers it.
    """

    plan: str
    engine: str
    capability: str
    driver: int

    @property
    def digest(self) -> bytes:
        """32 bytes that differ for any other key."""
        parts = (self.plan, self.engine, self.capability, str(self.driver))
        return sha256("\0".join(parts).encode()).digest()


def cache_path(artifact: str, variant: str, key: CacheKey, chosen: str | None = None) -> str:
    """Return the file of a cache.

    Beside the artifact, with its name, the variant, the GPU and the start of the key's digest, so
    that machines that share a folder do not overwrite each other's.

    Args:
        artifact: The path of the artifact.
        variant: The variant's name.
        key: What the cache is good for.
        chosen: A folder (then the file goes there), a file, or None.
    """
    name = os.path.basename(artifact)  # noqa: PTH119 - pathlib costs import time
    sm = key.capability.replace(".", "")
    file = f"{name}.{variant}.sm{sm}.{key.digest.hex()[:12]}{SUFFIX}"
    if chosen is None:
        return os.path.join(os.path.dirname(artifact), file)  # noqa: PTH118, PTH120 - as above
    if os.path.isdir(chosen):  # noqa: PTH112 - as above
        return os.path.join(chosen, file)  # noqa: PTH118 - as above
    return chosen


def read_cache(path: str, key: CacheKey) -> bytes | None:
    """Return the engine's bytes, or None when there are none that may be used."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not _is_ours(status) or status.st_size > _MAX_BYTES:
            return None
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read(status.st_size)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return decode_cache(data, key)


def _is_ours(status: os.stat_result) -> bool:
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & _OTHERS_WRITE
    )


def encode_cache(data: bytes, key: CacheKey) -> bytes:
    """Return the file's bytes: a mark, the key, the digest of what follows, what follows."""
    return _MAGIC + key.digest + sha256(data).digest() + data


def decode_cache(data: bytes, key: CacheKey) -> bytes | None:
    """Return what `encode_cache` was given, or None if the bytes are not of this key, or damaged."""
    start = len(_MAGIC)
    end = start + 2 * _DIGEST
    payload = data[end:]
    if data[:start] != _MAGIC or data[start : start + _DIGEST] != key.digest:
        return None
    return payload if data[start + _DIGEST : end] == sha256(payload).digest() else None


def write_cache(path: str, data: bytes, key: CacheKey) -> bool:
    """Write a cache whole or not at all; return whether it was written.

    A folder that is read-only, full or missing is not an error: the next start is slower.
    """
    partial = f"{path}.{os.getpid()}.partial"
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(partial, flags, 0o600)
    except OSError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode_cache(data, key))
        os.replace(partial, path)  # noqa: PTH105 - pathlib costs import time
    except OSError:
        with suppress(OSError):
            os.unlink(partial)  # noqa: PTH108 - as above
        return False
    return True
