"""A bounded queue between two stages: it blocks the writer when full, and cancellation wakes both sides."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from exactile.pipeline.cancellation import Cancellation

Item = TypeVar("Item")


class Channel(Generic[Item]):
    """At most ``capacity`` items wait. One side closes it; the other iterates to the end."""

    def __init__(self, capacity: int, cancellation: Cancellation) -> None:
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._closed = False
        self._changed = threading.Condition()
        self._cancellation = cancellation
        cancellation.on_cancel(self._wake)

    def put(self, item: Item) -> None:
        """Wait for room, then add. Raises CancelledError."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._capacity or self._cancellation.is_set)
            self._cancellation.check()
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> Item:
        """Wait for an item of a channel that is never closed. Raises CancelledError."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._cancellation.is_set)
            self._cancellation.check()
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Signal that no more items will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._items) or self._closed or self._cancellation.is_set)
                self._cancellation.check()
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
