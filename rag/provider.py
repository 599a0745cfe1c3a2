"""What the clients of OpenAI's interface have in common, whatever they ask for: where a key may go, how one connects,
and what each error means to the caller."""

from __future__ import annotations

import email.utils
import logging
import math
import os
import time
from typing import TYPE_CHECKING, Any

from indexes.errors import ChangeRequest, RagError, TryLater

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI, OpenAI

    from rag.embedders import EmbedderSpec
    from rag.models import ModelAlias

HOSTED = "https://api.openai.com/v1"
HOSTED_KEY = "OPENAI_API_KEY"
"""The hosted service's usual variable."""
CONNECT_SECONDS = 10.0
LONGEST_WAIT = 3600.0
"""Seconds that a server's `Retry-After` is repeated with, at most."""
REASONED = (400, 413, 422)
"""Refusals whose reason is the request's own, so that the caller is told of it; what others say is for the log."""
LONGEST_EXCERPT = 300
"""Characters of a server's own message that ours or the log repeats."""

log = logging.getLogger(__name__)


class Provider:
    """The server behind one alias, hosted or self-hosted by base URL."""

    def __init__(self, alias: EmbedderSpec | ModelAlias, table: str, holder: str, who: str) -> None:
        """`table` is the alias's in the settings; messages begin with `holder` ("The model 'x'") or with `who` ("The
        server of the model 'x'").

        The key is read from the environment variable that the alias names. The hosted service's usual variable is read
        only for the hosted service (no `base_url`): a key goes nowhere else unasked. Raises TryLater when the variable
        is not set.
        """
        self.who = who
        self._alias = alias
        self._table = table
        self._variable = alias.api_key_env or (HOSTED_KEY if alias.base_url is None else None)
        self._key = os.environ.get(self._variable, "").strip() if self._variable else None
        if self._key == "":
            raise TryLater(
                f"{holder} has no key: the environment variable {self._variable} is not set. Its operator should set "
                "it and restart."
            )

    def client(self) -> OpenAI:
        """A client that reaches the base URL and nothing else: no proxy from the environment, no redirects."""
        from openai import DefaultHttpxClient, OpenAI

        client = OpenAI(**self._options(DefaultHttpxClient))
        self._keep_to_itself(client)
        return client

    def async_client(self) -> AsyncOpenAI:
        """The same, to be awaited."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        client = AsyncOpenAI(**self._options(DefaultAsyncHttpxClient))
        self._keep_to_itself(client)
        return client

    def _options(self, transport: Any) -> dict[str, Any]:
        from openai import Timeout

        timeout = Timeout(self._alias.timeout, connect=min(CONNECT_SECONDS, self._alias.timeout))
        return {
            "base_url": self._alias.base_url or HOSTED,
            "api_key": self._key or "none",
            "timeout": timeout,
            "max_retries": self._alias.retries,
            "http_client": transport(trust_env=False, follow_redirects=False, timeout=timeout),
        }

    def _keep_to_itself(self, client: OpenAI | AsyncOpenAI) -> None:
        if self._alias.base_url is not None:
            client.organization = client.project = None  # the SDK has read them from the environment

    def translated(self, error: Exception, *, refused: str, nonsense: str = "unavailable") -> RagError:
        """What the SDK raised, as ours: `refused` and `nonsense` are the codes for a request that the server does not
        take and for something that is no answer."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        if isinstance(error, APIStatusError):
            return self._of_status(error, refused)
        if isinstance(error, APITimeoutError):
            return TryLater(f"{self.who} sent nothing for {self._alias.timeout:g} seconds.", code="timeout")
        if isinstance(error, APIConnectionError):
            return TryLater(f"{self.who} could not be reached, or the connection broke.")
        log.warning("%s sent something that is no answer%s", self.who, self._excerpt(error))
        return TryLater(f"{self.who} sent something that is no answer. This server's log says more.", code=nonsense)

    def _of_status(self, error: APIStatusError, refused: str) -> RagError:
        status = error.status_code
        if status in (401, 403):
            return TryLater(
                f"{self.who} refused this installation's credentials (status {status}). {self._key_advice()}"
            )
        if status in (408, 409, 429) or status >= 500 or status < 400:
            log.warning("%s answered with status %d%s", self.who, status, self._excerpt(error))
            code = "rate_limit_exceeded" if status == 429 else "unavailable"
            wait = retry_after(error.response.headers.get("retry-after", ""))
            return TryLater(f"{self.who} answered with status {status}.", code=code, retry_after=wait)
        told = self._excerpt(error)
        if status not in REASONED:
            log.warning("%s refused a request (status %d)%s", self.who, status, told)
            told = ""
        return ChangeRequest(f"{self.who} refused the request (status {status}){told}.", code=refused)

    def _key_advice(self) -> str:
        if self._variable is None:
            return (
                f"No key was sent, since [{self._table}] names none. Its operator should put one into an environment "
                "variable and name that as `api_key_env`."
            )
        return f"Its operator should check the key in the environment variable {self._variable}."

    def _excerpt(self, error: Exception) -> str:
        """The server's own words, short and without our key."""
        words = " ".join((_own_message(error) or str(error)).split())
        if self._key:
            words = words.replace(self._key, "***")
        return f": {words[:LONGEST_EXCERPT].rstrip('.')}" if words else ""


def retry_after(value: str) -> float | None:
    """Seconds that a server's `Retry-After` asks to wait, LONGEST_WAIT at most: a number or a date (RFC 9110, 10.2.3);
    None for neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None


def _own_message(error: Exception) -> str | None:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return message if isinstance(message, str) else None
