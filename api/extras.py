"""Parts whose packages are installed only where they are wanted: `pip install 'rag[NAME]'`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from indexes.errors import Unsupported


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around the imports of an extra. Raises Unsupported (`missing_package`) that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Unsupported(
            f"The package {error.name!r} is not installed. Install it: pip install 'rag[{name}]'",
            code="missing_package",
        ) from error
