"""How a parsed text lies in the blob store: one line of JSON about its structure, then the text itself."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

from rag.blobs import BlobStore, read_blob

PIECE = 1 << 20


def encode_text(structure: Mapping[str, Any], text: str) -> Iterator[bytes]:
    """The bytes to store, in pieces of bounded size."""
    yield json.dumps(structure, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
    yield from _pieces(text)


def encode_parts(blocks: Iterable[Iterable[Sequence[Any]]], texts: Iterable[str]) -> Iterator[bytes]:
    """The same for a text in parts: the blocks of each, with positions in the whole, then each one's text."""
    yield b'{"blocks":['
    first = True
    for of_part in blocks:
        data = json.dumps(list(of_part), separators=(",", ":")).encode()[1:-1]
        if data:
            yield data if first else b"," + data
            first = False
    yield b'],"metadata":{}}\n'
    for text in texts:
        yield from _pieces(text)


def _pieces(text: str) -> Iterator[bytes]:
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE].encode()


def decode_text(data: bytes) -> tuple[dict[str, Any], str]:
    """Structure and text, as they were given to `encode_text`."""
    end = data.index(b"\n")
    return json.loads(data[:end]), data[end + 1 :].decode()


class Texts:
    """Parsed texts by key, the most recently read ones kept in memory. Safe to use from several threads."""

    def __init__(self, blobs: BlobStore, capacity: int = 32 << 20) -> None:
        """`capacity` is in characters."""
        self._blobs = blobs
        self._capacity = capacity
        self._kept: OrderedDict[str, str] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def read(self, key: str) -> str:
        """The whole text. Raises NotThere when it has been purged."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        text = decode_text(read_blob(self._blobs, key))[1]
        with self._lock:
            if key not in self._kept and len(text) <= self._capacity // 4:
                self._kept[key] = text
                self._size += len(text)
                while self._size > self._capacity:
                    self._size -= len(self._kept.popitem(last=False)[1])
        return text
