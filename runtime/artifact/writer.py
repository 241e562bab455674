"""Writes `model.lepton` (docs/artifact-format.md): all of it, or nothing.

The file has no name until it is complete: it is written to an anonymous inode in the
destination's folder, synced, and given its name by a rename. A process that dies at any
moment, even by SIGKILL, leaves the old file, or none. Only where the file system has no
anonymous files does a hidden `.partial` file stand in.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from leptonc.runtime.artifact import canonical_json as canonical
from leptonc.runtime.artifact.layout import CHUNK, MANIFEST, Section, encode_header, place
from leptonc.runtime.errors import EnvironmentProblem

Buffer = bytes | memoryview

_NO_ANONYMOUS_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_FIXES = {
    errno.ENOSPC: "free some space, or choose another disk with -o",
    errno.EDQUOT: "free some of your quota, or choose another disk with -o",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or choose another disk with -o",
    errno.EROFS: "choose a folder that can be written with -o",
    errno.EACCES: "choose a folder that can be written with -o",
    errno.EPERM: "choose a folder that can be written with -o",
    errno.ENOENT: "create the folder, or choose another with -o",
    errno.ENOTDIR: "choose another folder with -o",
}


@dataclass(frozen=True)
class SectionData:
    """A section to be written.

    Attributes:
        name: Unique in the file.
        length: Bytes that `chunks` gives in all.
        chunks: Gives the bytes in order, in pieces of any size; called once or more often.
    """

    name: str
    length: int
    chunks: Callable[[], Iterable[Buffer]]


class StagedArtifact:
    """An artifact that is being written and has no name yet; made by `stage_artifact`."""

    def __init__(self, path: str, descriptor: int, partial: str | None) -> None:
        self.path = path
        self._descriptor = descriptor
        self._partial = partial
        self._payloads: Sequence[SectionData] = ()
        self._sections: list[Section] = []

    @property
    def readable_path(self) -> str:
        """A path under which this process and its children can open the staged file."""
        return self._partial or f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def write(self, sections: Sequence[SectionData], manifest: Mapping[str, Any]) -> None:
        """Write everything: the sections in this order, then the manifest.

        Raises:
            EnvironmentProblem: The disk is full or refuses.
            ValueError: A section gave more or fewer bytes than it announced.
        """
        data = canonical.encode(manifest)
        places = place([(s.name, s.length) for s in sections] + [(MANIFEST, len(data))])
        with explained(self.path):
            os.ftruncate(self._descriptor, 0)
            written = [
                _write_section(self._descriptor, section, content.chunks())
                for section, content in zip(places, sections, strict=False)
            ]
            written.append(_write_section(self._descriptor, places[-1], [data]))
            _write_all(self._descriptor, 0, encode_header(written))
        self._payloads, self._sections = tuple(sections), written

    def replace_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write another manifest over the one given to `write`.

        Only the header and the last section change, unless the header needs more room.

        Raises:
            EnvironmentProblem: The disk is full or refuses.
        """
        data = canonical.encode(manifest)
        places = place([(s.name, s.length) for s in self._payloads] + [(MANIFEST, len(data))])
        if places[-1].offset != self._sections[-1].offset:
            self.write(self._payloads, manifest)
            return
        with explained(self.path):
            os.ftruncate(self._descriptor, places[-1].offset)
            self._sections[-1] = _write_section(self._descriptor, places[-1], [data])
            _write_all(self._descriptor, 0, encode_header(self._sections))

    def commit(self) -> int:
        """Sync the file to disk and give it its name, replacing what had that name.

        Returns:
            The size of the file in bytes.

        Raises:
            EnvironmentProblem: The disk or the folder refuses; the old file is untouched.
        """
        with explained(self.path):
            os.fsync(self._descriptor)
            if self._partial is None:
                self._partial = self._name_it()
            if self._partial is not None:
                os.replace(self._partial, self.path)  # noqa: PTH105 - pathlib costs import time
                self._partial = None
            _sync_folder(self.path)
        return self._sections[-1].end

    def discard(self) -> None:
        """Close the staged file; unless committed, nothing of it remains."""
        os.close(self._descriptor)
        if self._partial is not None:
            _remove(self._partial)

    def _name_it(self) -> str | None:
        """Link the anonymous file: to its final name if that is free, else beside it."""
        try:
            self._link(self.path)
        except FileExistsError:
            partial = _partial_name(self.path)
            _remove(partial)
            self._link(partial)
            return partial
        return None

    def _link(self, name: str) -> None:
        # Only with a folder's descriptor does os.link follow the symbolic link in /proc; the
        # path is absolute, so which descriptor does not matter.
        source = f"/proc/self/fd/{self._descriptor}"
        os.link(source, name, src_dir_fd=self._descriptor, follow_symlinks=True)


@contextmanager
def stage_artifact(path: str | os.PathLike[str]) -> Iterator[StagedArtifact]:
    """Open a nameless file in the folder of `path`; without `commit()` nothing remains.

    Raises:
        EnvironmentProblem: The folder is missing, read-only or full.
    """
    target = os.path.abspath(os.fspath(path))  # noqa: PTH100 - pathlib costs import time
    with explained(target):
        if os.path.isdir(target):  # noqa: PTH112 - pathlib costs import time
            raise EnvironmentProblem(
                "a folder has the name of the artifact", where=target, fix="choose another name"
            )
        descriptor, partial = _open_staged(target)
    staged = StagedArtifact(target, descriptor, partial)
    try:
        yield staged
    finally:
        staged.discard()


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn an error of the file system into one that says what to do.

    Raises:
        EnvironmentProblem: Any OSError inside the block.
    """
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(
            f"the artifact cannot be written: {error.strerror or error}",
            where=path,
            fix=_FIXES.get(error.errno or 0, "check the disk, or choose another folder with -o"),
        ) from error


def _open_staged(target: str) -> tuple[int, str | None]:
    folder = os.path.dirname(target)  # noqa: PTH120 - pathlib costs import time
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666), None
    except OSError as error:
        if error.errno not in _NO_ANONYMOUS_FILES:
            raise
    partial = _partial_name(target)
    _remove(partial)
    return os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666), partial


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - pathlib costs import time


def _partial_name(target: str) -> str:
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{name}.{os.getpid()}.partial")  # noqa: PTH118 - as above


def _write_section(descriptor: int, section: Section, pieces: Iterable[Buffer]) -> Section:
    """Write the pieces at the section's offset; return it with its digests."""
    digests, offset, digest, room = [], section.offset, sha256(), CHUNK
    for piece in pieces:
        rest = memoryview(piece).cast("B")
        if offset + len(rest) > section.end:
            raise ValueError(f"section {section.name!r} is longer than {section.length} bytes")
        _write_all(descriptor, offset, rest)
        offset += len(rest)
        while len(rest) >= room:
            digest.update(rest[:room])
            digests.append(digest.digest())
            rest, digest, room = rest[room:], sha256(), CHUNK
        digest.update(rest)
        room -= len(rest)
    if offset != section.end:
        raise ValueError(f"section {section.name!r} is shorter than {section.length} bytes")
    if room < CHUNK:
        digests.append(digest.digest())
    return replace(section, sha256=tuple(digests))


def _write_all(descriptor: int, offset: int, data: Buffer) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest[:CHUNK], offset)
        rest, offset = rest[count:], offset + count


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)  # noqa: PTH120 - as above
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
