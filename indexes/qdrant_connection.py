"""The way to Qdrant, over HTTP or in local mode: calls repeated where that helps, errors in our terms."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from indexes.errors import ChangeRequest, RagError, TryLater

OLDEST = (1, 19)
"""The first version that weighs words within one tenant, and lets payload indexes do without graphs of their own."""

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds before the first repetition of a call, doubled each time, and the most that a server may ask for."""

REPEATED = frozenset({"engine_unreachable", "engine_busy", "bad_answer"})
"""What may be otherwise a moment later; what an operator has to mend is not."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QdrantPlace:
    """Where the engine is: at a URL; else local mode in a folder; else local mode in memory.

    Local mode compares everything with everything in Python, and one process at a time may use a folder: for tests.
    """

    url: str | None = None
    """Of a server or a cluster's load balancer, such as `https://qdrant.example.com:6333` (else port 6333)."""
    api_key: str | None = field(default=None, repr=False)
    folder: Path | None = None
    timeout: float = 30.0
    """Seconds that one request may take."""
    tries: int = 5
    """How often a call is made, at most."""


class QdrantConnection:
    """A client for one place. Safe to use from several threads; nothing is sent before the first call.

    Raises ChangeRequest (`bad_settings`) for a URL that is none, TryLater (`engine_busy`) for a folder in use.
    """

    def __init__(self, place: QdrantPlace) -> None:
        self.local = place.url is None
        self.where = f"Qdrant at {place.url}" if place.url else f"Qdrant's local mode in {place.folder or 'memory'}"
        self._place = place
        self._usable = self.local
        self._turn = threading.Lock()
        """Local mode has no locks of its own: one call at a time."""
        try:
            self._client = _client(place)
        except ValueError as error:
            raise ChangeRequest(
                f"{place.url!r} is no address of a Qdrant server: {error}.", code="bad_settings"
            ) from error
        except RuntimeError as error:
            raise TryLater(f"{self.where} is used by another process.", code="engine_busy") from error

    def require_usable(self) -> None:
        """See that it is a Qdrant of a version that has what we use. Asks once.

        Raises ChangeRequest (`engine_too_old`) and what `call` raises.
        """
        if self._usable:
            return
        version = str(self.call("info").version)
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise ChangeRequest(
                f"{self.where} is version {version}; {oldest} or later is needed. Upgrade the server.",
                code="engine_too_old",
            )
        self._usable = True

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of `QdrantClient` that is harmless when repeated.

        Raises TryLater (`engine_unreachable`, `engine_busy`, `bad_answer`) after several tries, TryLater
        (`wrong_credentials`, `storage_full`, `collection_missing`) and ChangeRequest (`engine_refused`) at once.
        """
        for tried in range(1, self._place.tries + 1):
            try:
                return self._once(getattr(self._client, method), arguments)
            except RagError as error:
                if error.code not in REPEATED or tried == self._place.tries:
                    raise
                wait = _wait(tried, error)
                log.info("%s; trying again in %.1f s", error.message, wait)
                time.sleep(wait)
        raise AssertionError("at least one try")

    def close(self) -> None:
        """Close the connections, and leave the folder to others. Idempotent."""
        with self._turn:
            self._client.close()

    def _once(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        try:
            if not self.local:
                return function(**arguments)
            with self._turn:
                return function(**arguments)
        except (ResponseHandlingException, UnexpectedResponse, QdrantException, ValueError, RuntimeError) as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> RagError:
        if isinstance(error, ResourceExhaustedResponse):
            return TryLater(f"{self.where} is overloaded.", code="engine_busy", retry_after=error.retry_after_s)
        if isinstance(error, UnexpectedResponse):
            return self._refused(error.status_code or 0, _words(error))
        if isinstance(error, ResponseHandlingException):
            return self._broken(error.source)
        if isinstance(error, RuntimeError):
            return TryLater(f"{self.where} was closed; open it again.", code="engine_closed")
        if "not found" in str(error) and self.local:
            return self._missing(str(error))
        if self.local:
            return ChangeRequest(f"{self.where} refused the request: {error}", code="engine_refused")
        return self._broken(error)

    def _refused(self, status: int, words: str) -> RagError:
        if status in (401, 403):
            return TryLater(
                f"{self.where} refused this installation's API key (status {status}). Its operator should check it.",
                code="wrong_credentials",
            )
        if status == 404:
            return self._missing(words)
        if status == 507 or "no space left" in words.lower():  # which it says with status 500
            return TryLater(
                f"The disk of {self.where} is full ({words}). Free some space there; what is not written yet is "
                "written then.",
                code="storage_full",
            )
        if status in (408, 429) or status >= 500:
            return TryLater(f"{self.where} answered with status {status}: {words}", code="engine_busy")
        return ChangeRequest(f"{self.where} refused the request (status {status}): {words}", code="engine_refused")

    def _missing(self, words: str) -> RagError:
        return TryLater(
            f"{self.where} lost what it held: {words.rstrip('.')}. It is filled again from the catalog, by the process "
            "that runs the jobs.",
            code="collection_missing",
        )

    def _broken(self, source: Exception) -> RagError:
        if isinstance(source, httpx.TimeoutException):
            return TryLater(
                f"{self.where} sent nothing for {self._place.timeout:g} seconds.", code="engine_unreachable"
            )
        if isinstance(source, httpx.TransportError):
            return TryLater(
                f"{self.where} could not be reached, or the connection broke: {source}.", code="engine_unreachable"
            )
        if isinstance(source, ValidationError | ValueError | QdrantException):
            return TryLater(f"{self.where} sent something that is no answer of Qdrant.", code="bad_answer")
        return TryLater(f"{self.where} could not be asked: {source}", code="engine_closed")


def _client(place: QdrantPlace) -> QdrantClient:
    """Reaches its address and nothing else: no proxy from the environment, no redirects."""
    if place.url is None:
        return QdrantClient(path=str(place.folder)) if place.folder else QdrantClient(":memory:")
    parts = urlsplit(place.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it should begin with http:// or https:// and name a host")
    if place.api_key and parts.scheme == "http":
        log.warning("the API key of %s travels unencrypted; use https beyond this machine", place.url)
    return QdrantClient(
        url=place.url,
        headers={"api-key": place.api_key} if place.api_key else None,
        timeout=max(1, round(place.timeout)),
        check_compatibility=False,  # a thread of its own that only warns
        limits=httpx.Limits(max_keepalive_connections=16),
        trust_env=False,
        follow_redirects=False,
    )


def _wait(tried: int, error: RagError) -> float:
    """Seconds, with some chance in them so that many clients do not come back together."""
    asked = getattr(error, "retry_after", None) or 0.0
    return min(max(FIRST_WAIT * 2.0 ** (tried - 1) * random.uniform(0.5, 1.0), asked), LONGEST_WAIT)  # noqa: S311


def _words(error: UnexpectedResponse) -> str:
    """What the server said, in one line."""
    try:
        said = error.structured()["status"]["error"]
    except (ValueError, KeyError, TypeError):
        said = error.content.decode("utf-8", "replace") if error.content else error.reason_phrase
    return " ".join(str(said).split())[:300]
