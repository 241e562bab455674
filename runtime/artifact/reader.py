"""Reads `model.lepton` (docs/artifact-format.md), and trusts nothing in it.

Opening checks the structure: every bound, the manifest's own hash and its contents. The
hashes of everything else are checked by `Artifact.verify`, on all threads. What was hashed
is what is used: one descriptor, mapped once, and never opened by name again.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType, TracebackType

from leptonc.runtime.artifact import canonical_json as canonical
from leptonc.runtime.artifact.layout import (
    CHUNK,
    MANIFEST,
    PREFIX,
    Section,
    align,
    header_length,
    parse_header,
)
from leptonc.runtime.artifact.manifest import Manifest, ReadDemands, parse_manifest
from leptonc.runtime.artifact.writer import SectionData, StagedArtifact, stage_artifact
from leptonc.runtime.errors import ArtifactError, IntegrityError

__all__ = [
    "Artifact",
    "SectionData",
    "StagedArtifact",
    "Verification",
    "available_threads",
    "open_artifact",
    "stage_artifact",
]

_DAMAGED = "the file is damaged: copy or compile it again"


class Artifact:
    """An open artifact: its sections by name, its manifest, and views of its bytes.

    Replace an artifact by renaming a new file over it, as `leptonc compile` does; truncating
    a file that is mapped kills the process that reads it (SIGBUS), as with any mapping.

    Attributes:
        path: As it was given.
        sections: By name, in file order.
        manifest: Checked against the sections.
    """

    def __init__(
        self,
        path: str,
        identity: tuple[int, int],
        mapping: mmap.mmap,
        sections: tuple[Section, ...],
        manifest: Manifest,
    ) -> None:
        self.path = path
        self._identity = identity
        self.sections: Mapping[str, Section] = MappingProxyType({s.name: s for s in sections})
        self.manifest = manifest
        self._mapping = mapping

    @property
    def digest(self) -> str:
        """SHA-256 of the header, in hexadecimal; the header holds the hashes of everything else."""
        first = next(iter(self.sections.values()))
        return sha256(memoryview(self._mapping)[: first.offset]).hexdigest()

    def view(self, section: str, offset: int = 0, length: int | None = None) -> memoryview:
        """Return a read-only view of a section's bytes, without a copy."""
        found = self.sections[section]
        size = found.length - offset if length is None else length
        start = found.offset + offset
        return memoryview(self._mapping)[start : start + size]

    def verify(self, threads: int | None = None) -> None:
        """Check every hash and every byte of padding.

        Raises:
            IntegrityError: Bytes differ from those written; names section and chunk.
        """
        Verification(self, threads or available_threads()).wait()

    def release_pages(self) -> None:
        """Give mapped pages back to the page cache; a later access reads them again."""
        self._mapping.madvise(mmap.MADV_DONTNEED)

    def current_path(self) -> str | None:
        """Return a name that still means this very file, without symbolic links, or None."""
        path = os.path.realpath(self.path)
        try:
            return path if _identity(os.stat(path)) == self._identity else None  # noqa: PTH116
        except OSError:
            return None

    def check_not_replaced(self) -> None:
        """Refuse if the path means another file now than the one that was opened.

        Raises:
            IntegrityError: It was replaced while an engine read it by name.
        """
        try:
            now = _identity(os.stat(self.path))  # noqa: PTH116 - pathlib costs import time
        except OSError:
            return
        if now != self._identity:
            raise IntegrityError(
                "the file was replaced while it was being loaded",
                where=self.path,
                fix="load it again",
            )

    def close(self) -> None:
        """Unmap the file unless views of it are still alive; they keep it until they die."""
        try:
            self._mapping.close()
        except BufferError:
            return

    def __enter__(self) -> Artifact:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _chunks(self) -> Iterator[tuple[Section, int]]:
        for section in self.sections.values():
            for index in range(len(section.sha256)):
                yield section, index

    def _check_chunk(self, section: Section, index: int) -> None:
        start = section.offset + index * CHUNK
        end = min(start + CHUNK, section.end)
        with memoryview(self._mapping) as whole, whole[start:end] as chunk:
            intact = sha256(chunk).digest() == section.sha256[index]
        # Hashing must not count as memory: the pages stay in the page cache, unmapped here.
        page = start - start % mmap.PAGESIZE
        self._mapping.madvise(mmap.MADV_DONTNEED, page, end - page)
        if not intact:
            raise IntegrityError(
                f"the bytes {start} to {end} are not those that were written",
                where=f"{self.path}, section {section.name!r}, chunk {index}",
                fix=_DAMAGED,
            )

    def _check_padding(self, section: Section) -> None:
        end = min(align(section.end), len(self._mapping))
        if any(self._mapping[section.end : end]):
            raise IntegrityError(
                f"the padding from byte {section.end} to {end} is not zero",
                where=f"{self.path}, after section {section.name!r}",
                fix=_DAMAGED,
            )


class Verification:
    """A check of all hashes that runs on threads while the caller does something else.

    `hashlib` lets go of the interpreter's lock, so importing an engine costs nothing extra.
    """

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._artifact = artifact
        self._pending = artifact._chunks()
        self._lock = threading.Lock()
        self._errors: list[tuple[int, IntegrityError]] = []
        self._threads = [
            threading.Thread(target=self._work, name=f"leptonc-verify-{index}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def cancel(self) -> None:
        """Stop early and forget the result; returns when no thread reads the file."""
        with self._lock:
            self._pending = iter(())
        for thread in self._threads:
            thread.join()

    def wait(self) -> None:
        """Return when every byte is known to be intact.

        Raises:
            IntegrityError: The first difference, in file order.
        """
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise min(self._errors, key=lambda entry: entry[0])[1]
        for section in self._artifact.sections.values():
            self._artifact._check_padding(section)

    def _work(self) -> None:
        while not self._errors:
            with self._lock:
                task = next(self._pending, None)
            if task is None:
                return
            section, index = task
            try:
                self._artifact._check_chunk(section, index)
            except IntegrityError as error:
                self._errors.append((section.offset + index * CHUNK, error))


def available_threads() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_artifact(path: str | os.PathLike[str], demands: Mapping[str, ReadDemands]) -> Artifact:
    """Open an artifact and check all but the hashes of its payloads.

    Args:
        path: The file.
        demands: What reads the demands of backends that have their own; those of every other are
            checked to be a graph's. The runtime's are `leptonc.runtime.engines.loaders.DEMANDS`.

    Raises:
        ArtifactError: No such file, not a regular file, or a rule of the format is broken.
        IntegrityError: The manifest is not the one that was written.
    """
    where = os.fspath(path)
    descriptor = _open(where)
    try:
        status = os.fstat(descriptor)
        size = status.st_size
        length = header_length(os.pread(descriptor, PREFIX, 0), size, where)
        sections = parse_header(os.pread(descriptor, length, PREFIX), size, where)
        mapping = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    except OSError as error:
        raise ArtifactError(f"it cannot be read: {error.strerror}", where=where) from error
    finally:
        os.close(descriptor)
    try:
        manifest = _read_manifest(mapping, sections, where, demands)
    except ArtifactError:
        mapping.close()
        raise
    return Artifact(where, _identity(status), mapping, sections, manifest)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _open(where: str) -> int:
    # O_NONBLOCK: opening a FIFO without a writer would wait for ever.
    try:
        descriptor = os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        dangling = os.path.islink(where)  # noqa: PTH114 - pathlib costs import time
        raise ArtifactError(
            "it is a symbolic link to a file that does not exist"
            if dangling
            else "there is no such file",
            where=where,
            fix="check the path; `leptonc compile` makes the file",
        ) from error
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise ArtifactError(f"it cannot be opened: {what}", where=where) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactError("not a regular file", where=where, fix="give the .lepton file itself")
    return descriptor


def _read_manifest(
    mapping: mmap.mmap,
    sections: tuple[Section, ...],
    where: str,
    demands: Mapping[str, ReadDemands],
) -> Manifest:
    section = sections[-1]
    inside = f"{where}, section {MANIFEST!r}"
    data = mapping[section.offset : section.end]
    for index, digest in enumerate(section.sha256):
        if sha256(data[index * CHUNK : (index + 1) * CHUNK]).digest() != digest:
            raise IntegrityError(
                "the manifest is not the one that was written", where=inside, fix=_DAMAGED
            )
    try:
        value = canonical.decode(data)
    except canonical.NotCanonicalError as error:
        raise ArtifactError(
            f"the manifest is invalid: {error}", where=inside, fix=_DAMAGED
        ) from error
    return parse_manifest(value, {entry.name: entry for entry in sections}, where, demands)
