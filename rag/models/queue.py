"""The queue in front of a model: so many requests at once, so many waiting, and no more.

A place is taken in the order of asking and given back the moment its holder is done or has gone away. Each process has
its own queues: behind N replicas a provider sees up to N times as many requests.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from indexes.errors import TryLater
from rag.models import ModelAlias


class ModelQueue:
    """The places of one alias. To be used from one event loop."""

    def __init__(self, alias: ModelAlias) -> None:
        self._alias = alias
        self._free = alias.concurrent
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def busy(self) -> int:
        """Requests that hold a place."""
        return self._alias.concurrent - self._free

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return len(self._waiting)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place. Raises TryLater (`model_busy`) when all are taken and too many wait, or it takes too long."""
        await self._take()
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self) -> None:
        if self._free:  # then nobody waits: whoever gives a place back passes it on
            self._free -= 1
            return
        if len(self._waiting) >= self._alias.waiting:
            raise self._full(f"{self._alias.concurrent} answers are being made and {self._alias.waiting} requests wait")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            async with asyncio.timeout(self._alias.wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # it was ours at the moment of going away
            self._waiting.pop(turn, None)
            if isinstance(error, TimeoutError):
                raise self._full(f"none became free within {self._alias.wait_seconds:g} seconds") from error
            raise

    def _pass_on(self) -> None:
        """Give a place to whoever has waited longest, or back."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _full(self, why: str) -> TryLater:
        return TryLater(
            f"All places of the model {self._alias.name!r} are taken: {why}.", code="model_busy", retry_after=1.0
        )
