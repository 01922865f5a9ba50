"""Which documents of a domain stand for it: those whose hashes come first, until there is enough.

The order is a pure function of (seed, id), so a sample does not depend on the order, number or size of the files, and a
larger target only adds documents. The split is a function of (seed, text): equal texts share a split, so no text is in
two. Memory holds the sample, never the corpus.
"""

import hashlib
import heapq
from dataclasses import dataclass, field, replace
from typing import Any

from paloma.formats.document import Document
from paloma.measure import Measure

__all__ = ["DomainSample", "order_key", "split_of", "text_key"]


def order_key(seed: int, id: str) -> int:
    """Position of a document in its domain's order, 128 bits."""
    return int.from_bytes(hashlib.sha256(f"order\0{seed}\0{id}".encode()).digest()[:16])


def text_key(seed: int, text: str) -> bytes:
    """Hash of a text: two documents with the same are duplicates."""
    return hashlib.sha256(f"text\0{seed}\0{text}".encode()).digest()


def split_of(key: bytes, splits: tuple[str, ...]) -> str:
    """The split of a text, each equally likely."""
    return splits[int.from_bytes(key[:8]) % len(splits)]


@dataclass(order=True, slots=True)
class _Entry:
    negative_key: int  # heapq keeps the smallest on top; here the last in order has to be there
    text_key: bytes
    document: Document = field(compare=False)
    size: int = field(compare=False)
    alive: bool = field(compare=False, default=True)


class DomainSample:
    """The first documents of one domain and split, in hash order, up to `target` in the measure's unit."""

    def __init__(self, target: int, measure: Measure) -> None:
        self._target = target
        self._measure = measure
        self._heap: list[_Entry] = []
        self._by_text: dict[bytes, _Entry] = {}
        self._total = 0

    def offer(self, document: Document, key: int, text: bytes) -> None:
        """Take a document that is not empty, if it is among the first; of equal texts the first in order stays."""
        known = self._by_text.get(text)
        if known is not None:
            if -key <= known.negative_key:
                return
            known.alive = False
            entry = _Entry(-key, text, document, known.size)
        else:
            self._drop_dead()
            if self._total >= self._target and -key < self._heap[0].negative_key:
                return  # behind all that are needed: not even measured
            entry = _Entry(-key, text, document, self._measure.size(document.text))
            self._total += entry.size
        heapq.heappush(self._heap, entry)
        self._by_text[text] = entry
        self._drop_dead()
        while self._total - self._heap[0].size >= self._target:
            last = heapq.heappop(self._heap)
            del self._by_text[last.text_key]
            self._total -= last.size
            self._drop_dead()

    def _drop_dead(self) -> None:
        while self._heap and not self._heap[0].alive:
            heapq.heappop(self._heap)

    def documents(self, *, whole: bool) -> list[Document]:
        """The sample in order; unless `whole`, the last document is cut where the target is reached.

        What is cut off stands in its `metadata.truncated_portion`, as in Paloma's own files.
        """
        entries = sorted((entry for entry in self._heap if entry.alive), reverse=True)
        chosen = [entry.document for entry in entries]
        if whole or self._total <= self._target:
            return chosen
        last = entries[-1]
        kept = self._measure.cut(last.document.text, self._target - (self._total - last.size))
        if not kept:
            return chosen[:-1]
        metadata: dict[str, Any] = last.document.metadata | {"truncated_portion": last.document.text[len(kept) :]}
        return [*chosen[:-1], replace(last.document, text=kept, metadata=metadata)]
