"""Where the parts of an artifact lie: the header, its sections and their rules.

    0      8 bytes   magic, the last byte is the version of the format
    8      8 bytes   N, the length of the header, little-endian
    16     N bytes   the header: canonical JSON, then spaces up to a multiple of 4096
    16+N             the sections, each at the next multiple of 4096 after the one before it

Nothing here reads a file: the functions take and return bytes and numbers, so that every
rule can be tested without one. docs/artifact-format.md gives the reason of each rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leptonc.runtime.artifact import canonical_json as canonical
from leptonc.runtime.errors import ArtifactError

MAGIC = b"\x93LEPTON"
VERSION = 1
PREFIX = 16
ALIGNMENT = 4096
CHUNK = 4 << 20
MAX_HEADER = 64 << 20
MAX_FILE = 1 << 62
MANIFEST = "manifest"
FEATURES: frozenset[str] = frozenset()

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_HASH = re.compile(r"[0-9a-f]{64}")
_DAMAGED = "the file is damaged or was not written by leptonc: copy or compile it again"
_NEWER = "it needs a newer leptonc: pip install --upgrade leptonc"


@dataclass(frozen=True)
class Section:
    """One named run of bytes in the file.

    Attributes:
        name: Unique in the file.
        offset: Bytes from the start of the file, a multiple of `ALIGNMENT`.
        length: Bytes, without padding.
        sha256: The digest of each `CHUNK` of bytes, the last one possibly shorter.
    """

    name: str
    offset: int
    length: int
    sha256: tuple[bytes, ...]

    @property
    def end(self) -> int:
        """The first byte after the section."""
        return self.offset + self.length


def align(offset: int) -> int:
    """Return the first multiple of `ALIGNMENT` at or after `offset`."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def chunk_count(length: int) -> int:
    """Return how many digests a section of `length` bytes has."""
    return -(-length // CHUNK)


def encode_header(sections: Sequence[Section]) -> bytes:
    """Return the first bytes of the file, up to the first section."""
    header = canonical.encode(
        {
            "format": VERSION,
            "requires": [],
            "sections": [
                {
                    "name": section.name,
                    "offset": section.offset,
                    "length": section.length,
                    "sha256": [digest.hex() for digest in section.sha256],
                }
                for section in sections
            ],
        }
    )
    end = align(PREFIX + len(header))
    length = (end - PREFIX).to_bytes(8, "little")
    return MAGIC + bytes([VERSION]) + length + header.ljust(end - PREFIX, b" ")


def place(lengths: Sequence[tuple[str, int]]) -> list[Section]:
    """Return where sections of these names and lengths go, with zeroed digests.

    The header's size depends on the offsets in it, so this repeats until both agree: larger
    offsets never make a smaller header, so the first size that suffices is exact.
    """
    start = ALIGNMENT
    while True:
        sections, offset = [], start
        for name, length in lengths:
            offset = align(offset)
            sections.append(Section(name, offset, length, (bytes(32),) * chunk_count(length)))
            offset += length
        needed = len(encode_header(sections))
        if needed <= start:
            return sections
        start = needed


def header_length(prefix: bytes, file_size: int, where: str) -> int:
    """Return the length of the header that the first 16 bytes announce.

    Raises:
        ArtifactError: Not an artifact, another version, or a length that cannot be.
    """
    if file_size == 0:
        raise ArtifactError("the file is empty", where=where, fix=_DAMAGED)
    if prefix[: len(MAGIC)] != MAGIC[: len(prefix)]:
        raise ArtifactError(
            "not a leptonc artifact: the first bytes are not its magic",
            where=where,
            fix="give a .lepton file, made by `leptonc compile`",
        )
    if len(prefix) < PREFIX:
        raise ArtifactError(
            f"the file ends inside its first {PREFIX} bytes", where=where, fix=_DAMAGED
        )
    if prefix[7] != VERSION:
        raise ArtifactError(
            f"format version {prefix[7]}; this leptonc reads version {VERSION}",
            where=where,
            fix=_NEWER,
        )
    length = int.from_bytes(prefix[8:16], "little")
    if length > MAX_HEADER:
        raise ArtifactError(
            f"a header of {length} bytes is announced; at most {MAX_HEADER} are allowed",
            where=where,
            fix=_DAMAGED,
        )
    if length < 2 or (PREFIX + length) % ALIGNMENT:
        raise ArtifactError(
            f"the header's length {length} does not end at a multiple of {ALIGNMENT}",
            where=where,
            fix=_DAMAGED,
        )
    if PREFIX + length > file_size:
        raise ArtifactError(
            f"the file ends inside its header: {PREFIX + length} bytes are needed, "
            f"{file_size} are there",
            where=where,
            fix=_DAMAGED,
        )
    return length


def parse_header(header: bytes, file_size: int, where: str) -> tuple[Section, ...]:
    """Return the sections that a header describes, every rule checked.

    Args:
        header: The bytes between the prefix and the first section.
        file_size: Bytes in the file.
        where: The file, for messages.

    Raises:
        ArtifactError: A rule is broken; the message says which, and in which section.
    """
    text = header.rstrip(b" ")
    if len(header) - len(text) >= ALIGNMENT:
        raise ArtifactError(
            f"the header is padded with {len(header) - len(text)} spaces, more than needed",
            where=where,
            fix=_DAMAGED,
        )
    try:
        value = canonical.decode(text)
    except canonical.NotCanonicalError as error:
        raise ArtifactError(f"the header is invalid: {error}", where=where, fix=_DAMAGED) from error
    if isinstance(value, dict) and "requires" in value:
        _check_features(value["requires"], where)
    if not isinstance(value, dict) or set(value) != {"format", "requires", "sections"}:
        raise ArtifactError(
            "the header does not have exactly the keys format, requires, sections",
            where=where,
            fix=_DAMAGED,
        )
    if value["format"] != VERSION or not is_count(value["format"]):
        raise ArtifactError(
            f"format {value['format']!r}; this leptonc reads {VERSION}", where=where, fix=_NEWER
        )
    if not isinstance(value["sections"], list) or not value["sections"]:
        raise ArtifactError("the header has no list of sections", where=where, fix=_DAMAGED)
    sections = tuple(_parse_section(entry, where) for entry in value["sections"])
    _check_places(sections, PREFIX + len(header), file_size, where)
    return sections


def is_count(value: Any) -> bool:
    """Return whether `value` is an integer from 0 to 2**62, and not a boolean."""
    return type(value) is int and 0 <= value <= MAX_FILE


def _check_features(requires: Any, where: str) -> None:
    if not isinstance(requires, list) or not all(isinstance(name, str) for name in requires):
        raise ArtifactError("`requires` is not a list of names", where=where, fix=_DAMAGED)
    unknown = [name for name in requires if name not in FEATURES]
    if unknown:
        raise ArtifactError(
            f"the artifact requires a feature that this leptonc does not know: {unknown[0]!r}",
            where=where,
            fix=_NEWER,
        )


def _parse_section(entry: Any, where: str) -> Section:
    if not isinstance(entry, dict) or set(entry) != {"name", "offset", "length", "sha256"}:
        raise ArtifactError(
            "a section does not have exactly the keys name, offset, length, sha256",
            where=where,
            fix=_DAMAGED,
        )
    name, hashes = entry["name"], entry["sha256"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ArtifactError(f"{name!r} is not a section name", where=where, fix=_DAMAGED)
    where = f"{where}, section {name!r}"
    for key in ("offset", "length"):
        if not is_count(entry[key]):
            raise ArtifactError(
                f"the {key} {entry[key]!r} is not an integer from 0 to 2**62",
                where=where,
                fix=_DAMAGED,
            )
    if not isinstance(hashes, list) or len(hashes) != chunk_count(entry["length"]):
        raise ArtifactError(
            f"{chunk_count(entry['length'])} hashes are needed, one for each {CHUNK} bytes",
            where=where,
            fix=_DAMAGED,
        )
    if not all(isinstance(digest, str) and _HASH.fullmatch(digest) for digest in hashes):
        raise ArtifactError(
            "a hash is not 64 lower-case hexadecimal digits", where=where, fix=_DAMAGED
        )
    digests = tuple(bytes.fromhex(digest) for digest in hashes)
    return Section(name, entry["offset"], entry["length"], digests)


def _check_places(sections: tuple[Section, ...], first: int, file_size: int, where: str) -> None:
    names: set[str] = set()
    expected = first
    for section in sections:
        inside = f"{where}, section {section.name!r}"
        if section.name in names:
            raise ArtifactError("the section occurs twice", where=inside, fix=_DAMAGED)
        names.add(section.name)
        if section.offset % ALIGNMENT:
            raise ArtifactError(
                f"the offset {section.offset} is not a multiple of {ALIGNMENT}",
                where=inside,
                fix=_DAMAGED,
            )
        if section.offset < expected:
            raise ArtifactError(
                f"the offset {section.offset} overlaps what comes before it, "
                f"which needs the file up to {expected}",
                where=inside,
                fix=_DAMAGED,
            )
        if section.offset > expected:
            raise ArtifactError(
                f"a hole before the section: it starts at {section.offset}, not at {expected}",
                where=inside,
                fix=_DAMAGED,
            )
        if section.end > file_size:
            raise ArtifactError(
                f"the file is truncated: the section ends at {section.end}, "
                f"the file at {file_size}",
                where=inside,
                fix=_DAMAGED,
            )
        expected = align(section.end)
    if sections[-1].name != MANIFEST:
        raise ArtifactError("the last section is not the manifest", where=where, fix=_DAMAGED)
    if file_size > sections[-1].end:
        raise ArtifactError(
            f"{file_size - sections[-1].end} bytes after the last section",
            where=where,
            fix=_DAMAGED,
        )
