"""The progress of long work: bars on stderr for people, events on stdout for machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from api.commands.output import note, print_json

EVENT_SECONDS = 1.0
"""Between two progress events."""


class Bar:
    """Shows how many documents have ended, how fast it goes and how long it will take."""

    def __init__(self, total: int, as_json: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._json = as_json
        self._total = total
        self._started = time.monotonic()
        self._last_event = 0.0
        self._tokens = 0
        self._done = 0
        shown = not as_json and total > 0 and sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not shown,
        )
        self._task = self._progress.add_task("uploading", total=max(total, 1), rate="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def uploaded(self, number: int) -> None:
        """So many documents were sent."""
        self._progress.update(self._task, completed=number)
        self._event("uploading", number)
        if number == self._total:
            self._started = time.monotonic()
            self._progress.reset(self._task)

    def ended(self, number: int, tokens: int) -> None:
        """So many documents have come to an end, for which so many tokens were embedded."""
        self._done, self._tokens = number, tokens

    def moving(self, done: int, files: Sequence[Mapping[str, Any]]) -> None:
        """So many are done; these are being worked on."""
        tokens = self._tokens + sum(file["progress"].get("embedded_tokens", 0) for file in files)
        seconds = max(time.monotonic() - self._started, 1e-6)
        rate = f"{done / seconds:.1f} documents/s, {tokens / seconds:,.0f} tokens/s"
        self._progress.update(self._task, description="ingesting", completed=self._done, rate=rate)
        self._event("ingesting", self._done, tokens)

    def failed(self, failure: Mapping[str, str]) -> None:
        """A document failed."""
        if self._json:
            print_json({"event": "failed", **failure}, one_line=True)
        else:
            note(f"failed: {failure['source']}: {failure['code']}: {failure['message']}")

    def _event(self, stage: str, done: int, tokens: int = 0) -> None:
        now = time.monotonic()
        if self._json and now - self._last_event >= EVENT_SECONDS:
            self._last_event = now
            event = {"event": "progress", "stage": stage, "done": done, "total": self._total, "embedded_tokens": tokens}
            print_json(event, one_line=True)


@contextmanager
def stages(*, as_json: bool, events: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """What to tell of work in stages: which one, and how much of it is done of how much. A bar for each stage, or,
    with `as_json`, `events`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    shown = not as_json and sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done)
            if as_json and events:
                print_json({"event": "progress", "stage": stage, "done": done, "total": total}, one_line=True)

        yield tell
