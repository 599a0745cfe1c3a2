"""How much each key may ask of this process: requests a minute, and requests at once.

Every process counts for itself: behind several replicas a key may do so many times as much, and a restart forgets.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from indexes.errors import TryLater
from rag.access import Caller


@dataclass
class _Bucket:
    """So many requests may come at once; used ones come back evenly over a minute."""

    most: int
    left: float
    at: float

    def fill(self, now: float) -> None:
        self.left = min(self.most, self.left + (now - self.at) * self.most / 60)
        self.at = now

    def seconds_until(self, left: float) -> float:
        return max(0.0, (left - self.left) * 60 / self.most)


class Limiter:
    """Counts the requests of keys. For one event loop."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._running: dict[str, int] = {}

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[dict[str, str]]:
        """Count one request while it runs; what its answer says of the limits. Raises TryLater
        (`rate_limit_exceeded`)."""
        if caller.key_id is None:
            yield {}
            return
        at_once = caller.limits.concurrent_requests
        running = self._running.get(caller.key_id, 0)
        if at_once is not None and running >= at_once:
            raise _exceeded(f"{at_once} requests at once", 1.0)
        told = self._take(caller.key_id, caller.limits.requests_per_minute)
        self._running[caller.key_id] = running + 1
        try:
            yield told
        finally:
            self._running[caller.key_id] -= 1
            if not self._running[caller.key_id]:
                del self._running[caller.key_id]

    def _take(self, key_id: str, most: int | None) -> dict[str, str]:
        if most is None:
            return {}
        now = time.monotonic()
        bucket = self._buckets.get(key_id)
        if bucket is None or bucket.most != most:
            bucket = self._buckets[key_id] = _Bucket(most, most, now)
        bucket.fill(now)
        if bucket.left < 1:
            raise _exceeded(f"{most} requests a minute", bucket.seconds_until(1))
        bucket.left -= 1
        return {
            "x-ratelimit-limit-requests": str(most),
            "x-ratelimit-remaining-requests": str(math.floor(bucket.left)),
            "x-ratelimit-reset-requests": f"{bucket.seconds_until(most):.3f}s",
        }


def _exceeded(what: str, seconds: float) -> TryLater:
    return TryLater(
        f"The key's limit of {what} is reached. Wait, and send it again.",
        code="rate_limit_exceeded",
        retry_after=seconds,
    )
