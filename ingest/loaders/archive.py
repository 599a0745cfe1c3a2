"""Zip containers and the XML inside them, read so that neither can expand without bound or reach outside."""

from __future__ import annotations

import posixpath
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ingest.failures import DocumentFailure

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MAX_ENTRIES = 50_000
MAX_PART_BYTES = 256 * 2**20
MAX_RATIO = 1_000
_RATIO_MATTERS_FROM = 8 * 2**20


class Archive:
    """A zip file whose parts are read one at a time into memory; nothing is ever unpacked to disk."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError) as error:
            raise DocumentFailure(
                "invalid_file", f"The file is damaged: it cannot be opened as a zip container ({error})."
            ) from error
        if len(self._zip.filelist) > MAX_ENTRIES:
            raise DocumentFailure("too_large", f"The file holds more than {MAX_ENTRIES} parts.")
        self.listing = tuple(dict.fromkeys(entry.filename for entry in self._zip.filelist if not entry.is_dir()))
        self.names = frozenset(entry.filename for entry in self._zip.filelist)

    def read(self, name: str) -> bytes | None:
        """The bytes of one part; None where there is no such part (or only a damaged one)."""
        name = name.lstrip("/")
        if name not in self.names:
            name = next((known for known in self.names if known.lower() == name.lower()), "")
        if not name:
            return None
        entry = self._zip.getinfo(name)
        _refuse_encrypted(entry)
        _refuse_bomb(entry)
        try:
            with self._zip.open(entry) as part:
                data = part.read(MAX_PART_BYTES + 1)
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError) as error:
            raise DocumentFailure("invalid_file", f"The file is damaged at its part {name!r} ({error}).") from error
        except Exception as error:  # zlib.error, lzma.LZMAError and whatever else a decompressor raises
            raise DocumentFailure("invalid_file", f"The file is damaged at its part {name!r}.") from error
        if len(data) > MAX_PART_BYTES:
            raise DocumentFailure("too_large", f"The part {name!r} expands to more than {MAX_PART_BYTES >> 20} MiB.")
        return data

    def check_all(self) -> None:
        """Raise DocumentFailure where a part is encrypted or would expand without measure.

        For libraries that read the file by themselves.
        """
        for entry in self._zip.filelist:
            _refuse_encrypted(entry)
            _refuse_bomb(entry)

    def xml(self, name: str) -> Element | None:
        """The root element of an XML part; None where the part is absent."""
        data = self.read(name)
        return None if data is None else parse_xml(data)

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Of an OOXML part (`""` for the package): relation id to (last word of its type, target part name)."""
        folder, name = posixpath.split(part)
        root = self.xml(posixpath.join(folder, "_rels", f"{name}.rels"))
        found: dict[str, tuple[str, str]] = {}
        for relation in root.iter("{*}Relationship") if root is not None else ():
            if relation.get("TargetMode") == "External":
                continue
            target = posixpath.normpath(posixpath.join("/", folder, unquote(relation.get("Target", "")))).lstrip("/")
            found[relation.get("Id", "")] = (relation.get("Type", "").rsplit("/", 1)[-1], target)
        return found


def parse_xml(data: bytes, *, recover: bool = False) -> Element:
    """The root of `data`. Entities stay unexpanded, no DTD is loaded, nothing is fetched.

    Raises DocumentFailure `invalid_file` where it is not well-formed.
    """
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        recover=recover,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError, LookupError) as error:
        raise DocumentFailure("invalid_file", f"The file is damaged: its XML does not parse ({error}).") from error
    if root is None:
        raise DocumentFailure("invalid_file", "The file is damaged: its XML holds no element.")
    return root


def local(element: Element) -> str:
    """An element's name without its namespace; "" for what is no element (an unexpanded entity)."""
    tag = element.tag
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def attribute(element: Element, name: str) -> str | None:
    """The attribute with that local name, whatever its namespace."""
    for key, value in element.attrib.items():
        if str(key).rsplit("}", 1)[-1] == name:
            return str(value)
    return None


def core_properties(archive: Archive) -> dict[str, str]:
    """What an OOXML package says of itself: title, author, date, subject, keywords."""
    part = next((t for kind, t in archive.relations("").values() if kind == "core-properties"), "docProps/core.xml")
    try:
        root = archive.xml(part)
    except DocumentFailure:
        return {}
    names = {"title": "title", "creator": "author", "created": "date", "subject": "subject", "keywords": "keywords"}
    values = {local(child): (child.text or "").strip() for child in root} if root is not None else {}
    return {ours: values[theirs] for theirs, ours in names.items() if values.get(theirs)}


def _refuse_encrypted(entry: zipfile.ZipInfo) -> None:
    if entry.flag_bits & 1:
        raise DocumentFailure("encrypted", "The file is protected by a password. Save it without one.")


def _refuse_bomb(entry: zipfile.ZipInfo) -> None:
    large = entry.file_size > _RATIO_MATTERS_FROM
    if entry.file_size > MAX_PART_BYTES or (large and entry.file_size > MAX_RATIO * max(entry.compress_size, 1)):
        raise DocumentFailure("too_large", f"The part {entry.filename!r} expands to {entry.file_size} bytes.")
