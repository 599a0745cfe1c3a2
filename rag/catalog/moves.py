"""The mark that a move leaves in both catalogs, and who may write under it.

    the source    -> leaving -> moved             read on; writes are told to try later, then that it has moved
    the target    -> arriving -> arrived          not opened before it has arrived

A move that stays in its catalog (other blobs, another engine) goes from leaving to arrived. `Database.write` looks at
the mark after it has its lock, and a mark is only ever set alone, without `shared`: so no writer can slip through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from indexes.errors import ChangeRequest, TryLater
from rag.catalog import schema

_installation = schema.installation.c


@dataclass(frozen=True)
class Mark:
    """Where a move stands, as one of its ends has it. `id` is the same at both ends."""

    id: str
    state: Literal["leaving", "moved", "arriving", "arrived"]
    plan: Mapping[str, str | None]
    """What was asked for, without secrets: whoever goes on with the move must ask for the same."""
    source: str
    """The incarnation of the catalog that is left."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """What was copied, by table; written with the rows themselves."""


def read_mark(connection: Connection) -> Mark | None:
    """The mark in this catalog, None when nothing was ever moved."""
    found = connection.execute(sa.select(_installation.move)).scalar()
    return None if found is None else Mark(**found)


def set_mark(connection: Connection, mark: Mark | None) -> None:
    """Put a mark in the place of the one that is there."""
    values = {"move": None if mark is None else asdict(mark)}
    connection.execute(sa.update(schema.installation).values(values))


def settle(connection: Connection, mark: Mark, incarnation: str, blobs: str) -> None:
    """End a move where it arrived: views from before are not to be trusted, and the blobs lie there now."""
    values = {"incarnation": incarnation, "blobs": blobs, "move": asdict(mark)}
    connection.execute(sa.update(schema.installation).values(values))


def require_writable(connection: Connection, blobs: str | None) -> None:
    """Refuse writing while the catalog is moved and once it has; and to whoever keeps blobs (`blobs`, None for nobody
    knows) in another place than the one that they were moved to.

    Raises TryLater (`moving`, `half_moved`) and ChangeRequest (`moved`, `blobs_moved`).
    """
    row = connection.execute(sa.select(_installation.move, _installation.blobs)).first()
    if row is None:
        return
    if row.move is not None:
        _require_settled(Mark(**row.move))
    if row.blobs is not None and blobs is not None and blobs != row.blobs:
        raise ChangeRequest(
            f"The blobs of this installation have moved to {row.blobs}, but the setting `blobs` says {blobs}. "
            "Correct it.",
            code="blobs_moved",
            param="blobs",
        )


def require_arrived(connection: Connection) -> None:
    """Refuse to open a catalog that is only half copied. Raises TryLater (`half_moved`)."""
    mark = read_mark(connection)
    if mark is not None and mark.state == "arriving":
        _require_settled(mark)


def _require_settled(mark: Mark) -> None:
    place = mark.plan["catalog"]
    if mark.state == "leaving":
        raise TryLater(
            f"This installation is being moved to {place}. It answers meanwhile, but takes no changes: try again when "
            "the move has ended. `rag move` with the same options goes on with it, `rag move --cancel` gives it up.",
            code="moving",
            retry_after=5.0,
        )
    if mark.state == "arriving":
        raise TryLater(
            f"The catalog {place} is half copied by a move. Run the same `rag move` again to finish it, or "
            "`rag move --cancel` with the same options to empty it.",
            code="half_moved",
            retry_after=5.0,
        )
    if mark.state == "moved":
        raise ChangeRequest(
            f"This installation has moved to {place} and takes no more changes here. Use the settings that `rag move` "
            "printed; the same command prints them again.",
            code="moved",
            param="catalog",
        )
