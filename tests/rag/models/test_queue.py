"""The queue in front of a model: never more than the places, in order, and nobody who left keeps one."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import pytest

from indexes.errors import TryLater
from rag.models.queue import ModelQueue
from rag.models.registry import EXTRACTIVE


def queue(concurrent: int, waiting: int, wait_seconds: float = 5.0) -> ModelQueue:
    return ModelQueue(replace(EXTRACTIVE, concurrent=concurrent, waiting=waiting, wait_seconds=wait_seconds))


async def hold(places: ModelQueue, order: list[int], number: int, done: asyncio.Event) -> None:
    async with places.place():
        order.append(number)
        await done.wait()


async def test_places_go_in_order_and_the_next_beyond_is_refused() -> None:
    places, order, done = queue(2, 2), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(places, order, number, done)) for number in range(4)]
    await asyncio.sleep(0.01)
    assert (order, places.busy, places.waiting) == ([0, 1], 2, 2)
    with pytest.raises(TryLater) as full:
        async with places.place():
            pass
    assert (full.value.code, full.value.retry_after) == ("model_busy", 1.0)
    done.set()
    await asyncio.gather(*tasks)
    assert (order, places.busy, places.waiting) == ([0, 1, 2, 3], 0, 0)


async def test_who_leaves_frees_the_place_at_once() -> None:
    places, order, done = queue(1, 3), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(places, order, number, done)) for number in range(3)]
    await asyncio.sleep(0.01)
    tasks[1].cancel()
    tasks[0].cancel()
    await asyncio.sleep(0.01)
    assert (order, places.busy, places.waiting) == ([0, 2], 1, 0)
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert places.busy == 0


async def test_a_wait_ends() -> None:
    places, done = queue(1, 3, wait_seconds=0.05), asyncio.Event()
    holder = asyncio.create_task(hold(places, [], 0, done))
    await asyncio.sleep(0.01)
    with pytest.raises(TryLater) as late:
        async with places.place():
            pass
    assert late.value.code == "model_busy"
    assert places.waiting == 0
    done.set()
    await holder
    assert places.busy == 0


async def test_no_place_is_lost_or_doubled_in_a_crowd() -> None:
    places, chosen, most = queue(3, 50, wait_seconds=0.02), random.Random(7), 0

    async def visit() -> None:
        nonlocal most
        with suppress(TryLater):
            async with places.place():
                most = max(most, places.busy)
                assert places.busy <= 3
                await asyncio.sleep(chosen.random() * 0.01)

    tasks = [asyncio.create_task(visit()) for _ in range(300)]
    for task in chosen.sample(tasks, 100):
        await asyncio.sleep(0.0005)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (most, places.busy, places.waiting) == (3, 0, 0)
