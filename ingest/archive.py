"""One vector store as one file: the form of the archive, and how one is written and read without trusting it.

A zip with these members; `api/manual/moving.md` tells every field. Ids are the ones of the installation that wrote it,
and connect the members with each other only.

    manifest.json    format, store, space, chunking, counts, SHA-256 of the members below
    files.jsonl      documents.jsonl      versions.jsonl
    chunks.parquet   vectors.parquet
    originals/<sha256>                    texts/<sha256>

The Parquet members are flat and plain (neither dictionaries nor compression; the zip compresses), so what reading them
takes is bounded by their size, and no member is larger than its zip says.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from indexes.errors import ChangeRequest, NotThere, TryLater, Unsupported
from ingest.split import ChunkSettings
from rag.spaces import Space

FORMAT, VERSION = "rag-store", 1
TABLES = ("files.jsonl", "documents.jsonl", "versions.jsonl", "chunks.parquet", "vectors.parquet")
MANIFEST = "manifest.json"
MOST_MANIFEST = 1 << 20
MOST_LINE = 4 << 20
"""Bytes of one line of JSON."""
MOST_RATIO = 200
"""An archive may unpack to so many times its size (and `SLACK`): plain text reaches 10, a bomb 1,000."""
SLACK = 64 << 20
TEXT_RATIO = 4
"""A parsed text may be so many times as large as the largest original."""
MOST_GROUP = 256 << 20
"""Bytes of one row group of a Parquet member."""
ROWS = 1_000
PIECE = 1 << 20
_BLOB = re.compile(r"(originals|texts)/[0-9a-f]{64}")

Line = TypeVar("Line", bound=BaseModel)
Attributes = dict[str, bool | int | float | str]


class Part(BaseModel):
    """A part of an archive: frozen, strict, and without names that we do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Sizes(TypedDict):
    max_chunk_size_tokens: Annotated[int, Field(ge=1, le=4_096)]
    chunk_overlap_tokens: Annotated[int, Field(ge=0)]


class StaticChunking(TypedDict):
    type: Literal["static"]
    static: Sizes


class AutoChunking(TypedDict):
    type: Literal["auto"]


class StorePart(Part):
    name: str = Field(min_length=1)
    description: str | None
    metadata: dict[str, str]
    chunking: AutoChunking | StaticChunking
    expires_after_days: int | None = Field(default=None, ge=1)


class SpacePart(Part):
    fingerprint: str
    definition: Space
    calibration: dict[str, float]


class EmbedderPart(Part):
    alias: str
    build: str


class ChunkSetPart(Part):
    fingerprint: str = Field(max_length=64)
    settings: ChunkSettings


class Counts(Part):
    files: int = Field(ge=0)
    documents: int = Field(ge=0)
    versions: int = Field(ge=0)
    chunks: int = Field(ge=0)
    vectors: int = Field(ge=0)


class Manifest(Part):
    format: Literal["rag-store"]
    version: Literal[1]
    created_at: int
    store: StorePart
    space: SpacePart
    embedder: EmbedderPart
    chunk_set: ChunkSetPart
    counts: Counts
    members: dict[str, str]
    """The SHA-256 of each of TABLES."""


class FileLine(Part):
    id: int
    filename: str
    purpose: str = Field(max_length=32)
    bytes: int = Field(ge=0)
    blob: str = Field(pattern="^[0-9a-f]{64}$")
    owned: bool
    created_at: int
    expires_at: int | None = None


class DocumentLine(Part):
    id: int
    file: int
    source: str
    attributes: Attributes
    permissions: list[str] = []
    next_permissions: list[str] | None = None
    chunking: AutoChunking | StaticChunking | None = None
    state: Literal["completed", "failed", "cancelled", "queued"]
    error_code: str | None = Field(max_length=32)
    error_message: str | None
    created_at: int
    updated_at: int


class VersionLine(Part):
    id: int
    document: int
    file: int
    title: str
    media_type: str
    text: str = Field(pattern="^[0-9a-f]{64}$")
    characters: int = Field(ge=0)
    created_at: int


def chunks_schema() -> Any:
    """The columns of `chunks.parquet`."""
    pa = arrow()
    return pa.schema(
        [
            pa.field("version", pa.int64(), nullable=False),
            pa.field("ordinal", pa.int32(), nullable=False),
            pa.field("start", pa.int64(), nullable=False),
            pa.field("end", pa.int64(), nullable=False),
            pa.field("page", pa.int32()),
            pa.field("tokens", pa.int32(), nullable=False),
            pa.field("heading_path", pa.string(), nullable=False),
            pa.field("header", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("embedding_key", pa.binary(16), nullable=False),
        ]
    )


def vectors_schema(dimension: int) -> Any:
    """The columns of `vectors.parquet`."""
    pa = arrow()
    return pa.schema(
        [
            pa.field("embedding_key", pa.binary(16), nullable=False),
            pa.field("vector", pa.binary(4 * dimension), nullable=False),
        ]
    )


def arrow() -> Any:
    """pyarrow. Raises Unsupported, which says what to install."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise Unsupported(
            "Archives need another package: pip install 'rag[archive]'", code="missing_package"
        ) from error
    return pyarrow


# ---- writing ---------------------------------------------------------------------------------------------------------


class _Hashed(io.RawIOBase):
    """What is written into a member, with its SHA-256 and its position, which pyarrow asks for."""

    def __init__(self, member: IO[bytes]) -> None:
        self._member = member
        self._position = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._member.write(piece)
        self.digest.update(piece)
        self._position += len(piece)
        return len(piece)


class ArchiveWriter:
    """Writes members one after the other; `members` holds what the manifest is to say of them."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self.members: dict[str, str] = {}

    @contextmanager
    def member(self, name: str) -> Iterator[IO[bytes]]:
        """A member to write to."""
        with self._file.open(zipfile.ZipInfo(name), "w", force_zip64=True) as inner:
            hashed = _Hashed(inner)
            yield hashed  # type: ignore[misc]
        self.members[name] = hashed.digest.hexdigest()

    def lines(self, name: str, parts: Iterable[Part]) -> int:
        """A member of JSON lines. Returns how many."""
        number = 0
        with self.member(name) as member:
            for part in parts:
                member.write(json.dumps(part.model_dump(mode="json"), ensure_ascii=True).encode() + b"\n")
                number += 1
        return number

    def table(self, name: str, schema: Any, pages: Iterable[Sequence[Mapping[str, Any]]]) -> int:
        """A Parquet member. Returns how many rows."""
        pa, number = arrow(), 0
        plain = {"compression": "none", "use_dictionary": False, "write_statistics": False, "store_schema": False}
        with self.member(name) as member, pa.parquet.ParquetWriter(member, schema, **plain) as writer:
            for rows in pages:
                writer.write_table(pa.Table.from_pylist(list(rows), schema=schema))
                number += len(rows)
        return number

    def blob(self, folder: str, key: str, pieces: Iterable[bytes]) -> None:
        """An original or a text. Raises NotThere (`blob_damaged`) where the bytes are not those of the key."""
        with self.member(f"{folder}/{key}") as member:
            for piece in pieces:
                member.write(piece)
        if self.members.pop(f"{folder}/{key}") != key:
            raise NotThere(f"The stored file {key} is damaged. Upload it again.", code="blob_damaged")

    def manifest(self, manifest: Manifest) -> None:
        """The last member."""
        with self.member(MANIFEST) as member:
            member.write(manifest.model_dump_json(indent=1).encode())


@contextmanager
def writing(path: Path) -> Iterator[ArchiveWriter]:
    """An archive that is written aside and has its name only once it is whole.

    Raises ChangeRequest (`file_exists`, `file_unwritable`) and TryLater (`storage_full`).
    """
    if path.exists():
        raise ChangeRequest(f"There is a file {path} already. Name another, or remove it.", code="file_exists")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("xb") as raw:
            with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as file:
                yield ArchiveWriter(file)
            raw.flush()
            os.fsync(raw.fileno())
        aside.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TryLater(
                f"The disk did not take the archive {path}: {error.strerror}. Free some space and export again.",
                code="storage_full",
            ) from error
        raise ChangeRequest(f"The archive {path} cannot be written: {error}.", code="file_unwritable") from error
    finally:
        aside.unlink(missing_ok=True)


# ---- reading ---------------------------------------------------------------------------------------------------------


class Archive:
    """An archive that is read. Every method raises ChangeRequest (`archive_damaged`, `bad_archive`) for what is not as
    it should be, naming the member."""

    def __init__(self, file: zipfile.ZipFile, size: int, most_blob: int) -> None:
        """`size` is the archive's own; `most_blob` the largest original that is taken, both in bytes."""
        self._file = file
        self._members = _checked_members(file.infolist(), size, most_blob)
        self.manifest = self._manifest()
        for name in TABLES:
            self._require_hash(name, self.manifest.members.get(name))

    def lines(self, name: str, kind: type[Line]) -> Iterator[Line]:
        """The lines of a member, each checked."""
        with self._opened(name) as member:
            number = 0
            while line := member.readline(MOST_LINE):
                number += 1
                if not line.endswith(b"\n"):
                    raise bad_archive(f"{name}, line {number}: it is longer than {MOST_LINE} bytes, or without an end")
                yield _parsed(kind, line, f"{name}, line {number}")

    def table(self, name: str, schema: Any, rows: int) -> Iterator[list[dict[str, Any]]]:
        """The rows of a Parquet member, page by page."""
        pa = arrow()
        with self._opened(name) as member:
            try:
                file = pa.parquet.ParquetFile(member, pre_buffer=False)
                _require_plain(name, file, schema, rows)
                for batch in file.iter_batches(ROWS, use_threads=False):
                    yield batch.to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise bad_archive(f"{name}: {error}") from error

    def pieces(self, folder: str, key: str) -> Iterator[bytes]:
        """The bytes of an original or a text, the last ones only once they are known to be those of the key."""
        name = f"{folder}/{key}"
        digest, held = hashlib.sha256(), b""
        with self._opened(name) as member:
            while piece := member.read(PIECE):
                digest.update(piece)
                if held:
                    yield held
                held = piece
        if digest.hexdigest() != key:
            raise damaged(f"{name}: its bytes are others than its name says")
        if held:
            yield held

    def _manifest(self) -> Manifest:
        with self._opened(MANIFEST) as member:
            data = member.read(MOST_MANIFEST)
        try:
            told = json.loads(data)
            found = (told["format"], told["version"])
        except (ValueError, KeyError, TypeError) as error:
            raise bad_archive(f"{MANIFEST}: it does not say what it is") from error
        if found != (FORMAT, VERSION):
            raise ChangeRequest(
                f"The archive's form is {found[0]!r}, version {found[1]!r}; this release reads {FORMAT!r}, version "
                f"{VERSION}.",
                code="unknown_archive",
            )
        return _parsed(Manifest, data, MANIFEST)

    def _require_hash(self, name: str, expected: str | None) -> None:
        digest = hashlib.sha256()
        with self._opened(name) as member:
            while piece := member.read(PIECE):
                digest.update(piece)
        if digest.hexdigest() != expected:
            raise damaged(f"{name}: its SHA-256 is not the one in {MANIFEST}")

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        if name not in self._members:
            raise damaged(f"{name} is missing")
        try:
            with self._file.open(self._members[name]) as member:
                yield member
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise damaged(f"{name}: {error}") from error


@contextmanager
def reading(path: Path, most_blob: int) -> Iterator[Archive]:
    """An archive, its directory, manifest and checksums of tables checked.

    Raises NotThere (`archive_not_found`) and ChangeRequest, as `Archive` does and for another form (`unknown_archive`).
    """
    if not path.is_file():
        raise NotThere(f"There is no archive {path}.", code="archive_not_found")
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise damaged(f"{path.name} is no whole zip file ({error})") from error
    with file:
        yield Archive(file, path.stat().st_size, most_blob)


def _checked_members(found: Sequence[zipfile.ZipInfo], size: int, most_blob: int) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in found:
        name = info.filename
        if name not in (MANIFEST, *TABLES) and not _BLOB.fullmatch(name):
            raise bad_archive(f"{name!r} is no member of an archive")
        if name in members:
            raise bad_archive(f"{name} is there twice")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise bad_archive(f"{name} is packed in a way that is not known here")
        limits = {MANIFEST: MOST_MANIFEST, "originals": most_blob, "texts": TEXT_RATIO * most_blob}
        most = limits.get(name.partition("/")[0])
        if most is not None and info.file_size > most:
            raise bad_archive(f"{name} is {info.file_size:,} bytes large; at most {most:,} are taken")
        members[name] = info
    unpacked = sum(info.file_size for info in members.values())
    if unpacked > MOST_RATIO * size + SLACK:
        raise bad_archive(f"it would unpack to {unpacked:,} bytes, more than {MOST_RATIO} times its size")
    return members


def _require_plain(name: str, file: Any, schema: Any, rows: int) -> None:
    """See that a Parquet member has our columns, so many rows, and nothing that unpacks to more than is there."""
    if not file.schema_arrow.remove_metadata().equals(schema):
        raise bad_archive(f"{name}: its columns are others than they should be")
    metadata = file.metadata
    if metadata.num_rows != rows:
        raise bad_archive(f"{name}: it holds {metadata.num_rows} rows, and {MANIFEST} says {rows}")
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.total_byte_size > MOST_GROUP:
            raise bad_archive(f"{name}: a row group is larger than {MOST_GROUP:,} bytes")
        for place in range(group.num_columns):
            column = group.column(place)
            if column.compression != "UNCOMPRESSED" or not {"PLAIN", "RLE"} >= set(column.encodings):
                raise bad_archive(f"{name}: write it without compression and without dictionaries")


def _parsed(kind: type[Line], data: bytes, where: str) -> Line:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise bad_archive(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def bad_archive(what: str) -> ChangeRequest:
    """The error for an archive that says what cannot be."""
    return ChangeRequest(f"The archive is not one that can be taken: {what}. Export it again.", code="bad_archive")


def damaged(what: str) -> ChangeRequest:
    """The error for an archive that is not as it was written."""
    return ChangeRequest(
        f"The archive is damaged or not whole: {what}. Copy it again from where it was made.", code="archive_damaged"
    )
