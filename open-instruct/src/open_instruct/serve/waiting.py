"""The requests that wait for a place in the batch, in a fair order."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

__all__ = ["FairQueue", "QueueFull"]

Item = TypeVar("Item")


class QueueFull(RuntimeError):
    """No more requests may wait."""


class FairQueue(Generic[Item]):
    """Clients take turns; the requests of one client keep their order.

    So a client that sends a hundred requests delays another client by one request, not by a hundred.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def put(self, client: str, items: list[Item]) -> None:
        """Add the items of one request, all or none. Raises QueueFull."""
        if len(self) + len(items) > self._capacity:
            raise QueueFull
        self._lines.setdefault(client, deque()).extend(items)

    def take(self) -> Item:
        """Remove the next item. Raises KeyError if there is none."""
        client, line = self._lines.popitem(last=False)
        item = line.popleft()
        if line:
            self._lines[client] = line  # to the end of the round
        return item
