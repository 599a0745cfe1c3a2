"""Who calls: the key in `Authorization`, and a user's signed claim in `X-RAG-Claim`. Read from the headers alone."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread
from starlette.datastructures import Headers, State

from indexes.errors import ChangeRequest, TryLater
from rag.access import Caller
from rag.catalog.keys import Key
from rag.keys import PREFIX, Keys, caller_of, on_behalf
from rag.settings import Settings, secret

CLAIM = "x-rag-claim"
LONGEST_CLAIM = 8_192
MOST_TAGS = 256
LONGEST_NAME = 256
LOOKUPS = 8
"""Keys that the catalog is asked for at once: wrong ones must not keep its connections from everybody else."""


class Doorkeeper:
    """Knows the callers of one installation."""

    def __init__(self, settings: Settings) -> None:
        self.operator = Caller(settings.tenant)
        self._bootstrap = secret(settings.server.api_key)
        self._claim_secret = secret(settings.server.claim_secret)
        self._lookups = anyio.CapacityLimiter(LOOKUPS)

    async def caller(self, headers: Headers, app: State) -> Caller:
        """Whoever sent these headers; `app` holds the open backend.

        Without a key of its own the server takes a request without one of ours for the operator's: it listens on
        loopback only.

        Raises ChangeRequest (`missing_api_key`, `invalid_api_key`, `invalid_claim`), TryLater when the catalog cannot
        be asked.
        """
        given = headers.getlist("authorization")
        token = _token(given)
        if self._is_operator(given, token):
            return self._claimed(headers, self.operator, may_delegate=False)
        key = await self._key(token, app.backend.keys)
        return self._claimed(headers, caller_of(key), may_delegate=key.may_delegate)

    async def holds(self, headers: Headers, app: State) -> bool:
        """Whether the key that came with these headers is still good; where that cannot be asked, it is."""
        given = headers.getlist("authorization")
        token = _token(given)
        try:
            return self._is_operator(given, token) or bool(await self._key(token, app.backend.keys))
        except TryLater:
            return True
        except ChangeRequest:
            return False

    def _is_operator(self, given: Sequence[str], token: str | None) -> bool:
        if self._bootstrap is None:
            return len(given) < 2 and (token is None or not token.startswith(PREFIX))
        return token is not None and hmac.compare_digest(token.encode("latin-1"), self._bootstrap.encode())

    async def _key(self, token: str | None, keys: Keys) -> Key:
        if token is None:
            raise ChangeRequest("This server asks for a key: `Authorization: Bearer KEY`.", code="missing_api_key")
        known = keys.known(token)
        if known is not None:
            return known
        return await anyio.to_thread.run_sync(keys.find, token, limiter=self._lookups)

    def _claimed(self, headers: Headers, caller: Caller, *, may_delegate: bool) -> Caller:
        given = headers.getlist(CLAIM)
        if not given:
            return caller
        permissions, user = self._claim(given)
        return on_behalf(caller, permissions, user, may_delegate=may_delegate)

    def _claim(self, given: Sequence[str]) -> tuple[frozenset[str], str | None]:
        if self._claim_secret is None:
            raise _bad_claim("this server takes none, because `server.claim_secret` is not set")
        if len(given) > 1 or len(given[0]) > LONGEST_CLAIM:
            raise _bad_claim(f"one of {LONGEST_CLAIM:,} characters at most is expected")
        import jwt

        try:
            told = jwt.decode(given[0], self._claim_secret, algorithms=["HS256"], options={"require": ["exp"]})
        except jwt.ExpiredSignatureError as error:
            raise _bad_claim("it has expired") from error
        except (jwt.InvalidTokenError, RecursionError) as error:  # the latter for brackets within brackets
            raise _bad_claim(
                "it is not signed with HS256 and this server's secret, or does not say when it ends"
            ) from error
        permissions: Any = told.get("permissions")
        user: Any = told.get("sub")
        if not _are_tags(permissions) or not (user is None or _is_plain(user)):
            raise _bad_claim(f"`permissions` is a list of {MOST_TAGS} tags at most, `sub` a name")
        return frozenset(permissions), user


def _token(given: Sequence[str]) -> str | None:
    scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _are_tags(permissions: object) -> bool:
    if not isinstance(permissions, list) or len(permissions) > MOST_TAGS:
        return False
    return all(isinstance(tag, str) and _is_plain(tag) for tag in permissions)


def _is_plain(text: str) -> bool:
    """Whether a database takes it: printable characters, a reasonable number of them."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()


def _bad_claim(why: str) -> ChangeRequest:
    return ChangeRequest(f"The claim in `X-RAG-Claim` is refused: {why}.", code="invalid_claim")
