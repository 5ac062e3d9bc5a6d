"""Whether the B+ trees of a data file are sound.

LMDB keeps no checksums and trusts its pages: a flipped byte in a page's header may crash it. So each opening walks the trees by plain
reads, the upper levels first and up to `WALKED_PAGES` pages (a small store whole): every page that was walked holds only nodes that lie
inside it, in order, and points only to pages inside the file. What is in the values is for the checksums of those who wrote them.
"""

from __future__ import annotations

import os
from collections import deque
from struct import Struct, unpack_from
from typing import Final, NamedTuple, final

from ._errors import StoreCorrupt
from ._format import EMPTY_TREE, MAX_DEPTH, Header, Tree, headers
from ._protocol import MAX_KEY_BYTES

WALKED_PAGES: Final = 4_096  # 16 MiB of them; some 40 ms (measured)

# From LMDB 0.9's mdb.c: MDB_page's header, MDB_node's header, and their flags.
_PAGE: Final = Struct("=QHHHH")  # number, pad, flags, lower, upper
_NODE: Final = Struct("=HHHH")  # low and high half of the data size (or, with the flags, of a child's number), flags, key size
_BRANCH: Final = 1
_LEAF: Final = 2
_OVERFLOW: Final = 4
_BIG_DATA: Final = 1  # the value is the number of the first of its overflow pages
_NUMBER: Final = Struct("=Q")


class _Place(NamedTuple):
    """A page to look at, and the keys that may be in it: low <= key, and key < high unless that is None."""

    number: int
    depth: int
    low: bytes
    high: bytes | None


@final
class _Walk:
    """The look at one tree. `seen` has a mark for each page that is in use, over all trees."""

    def __init__(self, file: int, header: Header, tree: Tree, seen: set[int], *, free: bool) -> None:
        self.free_pages: list[int] = []
        self._file = file
        self._size = header.page_size
        self._end = header.last_page + 1
        self._written = _written(file, header)
        self._transaction = header.transaction
        self._tree = tree
        self._seen = seen
        self._free = free
        self._branches = self._leaves = self._overflow = self._entries = 0
        self._places: deque[_Place] = deque()

    def run(self, limit: int) -> bool:
        """Look at up to `limit` pages, level by level; whether that was the whole tree. Raises ValueError that says what is unsound."""
        if self._tree.root == EMPTY_TREE:
            _require(self._tree[2:7] == (0, 0, 0, 0, 0), "an empty tree has entries")
            return True
        self._places.append(_Place(self._tree.root, 1, b"", None))
        while self._places:
            if limit <= 0:
                return False
            limit -= 1
            self._look_at(self._places.popleft())
        counted = (self._branches, self._leaves, self._overflow, self._entries)
        _require(counted == self._tree[3:7], f"a tree counts {counted} where its root says {self._tree[3:7]}")
        return True

    def _look_at(self, place: _Place) -> None:
        self._claim(place.number, 1)
        page = os.pread(self._file, self._size, place.number * self._size)
        number, _, flags, lower, upper = _PAGE.unpack_from(page)
        _require(number == place.number, f"page {place.number} says that it is {number}")
        _require(_PAGE.size < lower <= upper <= self._size and lower % 2 == 0, f"page {number} has impossible bounds")
        leaf = place.depth == self._tree.depth
        _require(flags == (_LEAF if leaf else _BRANCH), f"page {number} is of the wrong kind")
        offsets = unpack_from(f"={(lower - _PAGE.size) // 2}H", page, _PAGE.size)
        _require(min(offsets) >= upper and max(offsets) <= self._size - _NODE.size, f"page {number} has a node outside of it")
        if leaf:
            self._leaves += 1
            self._look_at_leaf(page, offsets, place)
        else:
            self._branches += 1
            self._look_at_branch(page, offsets, place)

    def _look_at_branch(self, page: bytes, offsets: tuple[int, ...], place: _Place) -> None:
        _require(place.depth < MAX_DEPTH, "a tree is too deep")
        children: list[tuple[int, bytes]] = []
        for offset in offsets:
            low, high, top, key_size = _NODE.unpack_from(page, offset)
            key = page[offset + 8 : offset + 8 + key_size]
            _require(len(key) == key_size, f"page {place.number} has a node that leaves it")
            children.append((low | high << 16 | top << 32, key if children else place.low))  # the first child has no key of its own
        keys = [key for _, key in children]
        self._check_order(keys[1:], place)
        for (number, key), high in zip(children, [*keys[1:], place.high], strict=True):
            self._places.append(_Place(number, place.depth + 1, key, high))

    def _look_at_leaf(self, page: bytes, offsets: tuple[int, ...], place: _Place) -> None:
        self._entries += len(offsets)
        keys: list[bytes] = []
        for offset in offsets:
            low, high, flags, key_size = _NODE.unpack_from(page, offset)
            size = low | high << 16
            value = offset + 8 + key_size
            _require(flags in (0, _BIG_DATA) and 0 < key_size <= MAX_KEY_BYTES, f"page {place.number} has an impossible node")
            _require(value + (8 if flags else size) <= self._size, f"page {place.number} has a node that leaves it")
            keys.append(page[offset + 8 : value])
            if flags:
                self._look_at_overflow(_NUMBER.unpack_from(page, value)[0], size)
            if self._free:
                self._note_free(keys[-1], self._value(page, value, size, big=bool(flags)))
        self._check_order(keys, place)

    def _check_order(self, keys: list[bytes], place: _Place) -> None:
        if self._free:  # its keys are native integers
            return
        ordered = all(map(bytes.__lt__, keys, keys[1:]))
        inside = not keys or (place.low <= keys[0] and (place.high is None or keys[-1] < place.high))
        _require(ordered and inside, f"page {place.number} has keys out of order")

    def _look_at_overflow(self, number: int, size: int) -> None:
        _require(1 < number < self._written, f"page {number} is outside the file")
        found, _, flags, low, high = _PAGE.unpack(os.pread(self._file, _PAGE.size, number * self._size))
        count = low | high << 16
        needed = (_PAGE.size - 1 + size) // self._size + 1  # a value that was overwritten by a shorter one keeps its pages
        _require((found, flags) == (number, _OVERFLOW) and count >= needed, f"page {number} is not the value that it should be")
        self._claim(number, count)
        self._overflow += count

    def _value(self, page: bytes, start: int, size: int, *, big: bool) -> bytes:
        if not big:
            return page[start : start + size]
        return os.pread(self._file, size, _NUMBER.unpack_from(page, start)[0] * self._size + _PAGE.size)

    def _note_free(self, key: bytes, value: bytes) -> None:
        """A row of the free tree: the pages that a transaction freed, counted, highest first."""
        transaction = int.from_bytes(key, "little" if _NUMBER.pack(1)[0] else "big")
        _require(len(key) == 8 and 0 < transaction <= self._transaction, "the free list has an impossible transaction")
        _require(len(value) >= 8 and len(value) % 8 == 0, "the free list has a damaged row")
        count, *pages = unpack_from(f"={len(value) // 8}Q", value)
        _require(count == len(pages) and all(map(int.__gt__, pages, pages[1:])), "the free list has a damaged row")
        _require(not pages or (pages[-1] > 1 and pages[0] < self._end), "the free list names pages outside the file")
        self.free_pages += pages

    def _claim(self, number: int, count: int) -> None:
        _require(1 < number < number + count <= self._written, f"page {number} is outside the file")
        for page in range(number, number + count):
            _require(page not in self._seen, f"page {page} is used twice")
            self._seen.add(page)


def check_tree(path: str, transaction: int) -> bool:
    """Look at the trees as of a transaction that a reader holds; whether all was looked at. Raises `StoreCorrupt` for unsound ones."""
    header = next((header for header in headers(path) if header.transaction == transaction), None)
    if header is None:  # a running host has gone on by two commits meanwhile, and has looked for itself
        return False
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _check_trees(file, header)
    except ValueError as unsound:
        left, needed = _written(file, header) * header.page_size, (header.last_page + 1) * header.page_size
        cut = f"truncated: {left} of at least {needed} bytes are left" if left < needed else "damaged"
        raise StoreCorrupt(path, f"it is {cut}: {unsound}") from unsound
    finally:
        os.close(file)


def _check_trees(file: int, header: Header) -> bool:
    seen: set[int] = set()
    main = _Walk(file, header, header.main, seen, free=False)
    free = _Walk(file, header, header.free, seen, free=True)
    unwritten = range(_written(file, header), header.last_page + 1)
    whole = main.run(WALKED_PAGES)
    whole = free.run(header.last_page if unwritten else WALKED_PAGES) and whole
    free_pages = set(free.free_pages)
    _require(len(free_pages) == len(free.free_pages), "the free list names a page twice")
    _require(seen.isdisjoint(free_pages), "the free list names pages that are in use")
    _require(free_pages.issuperset(unwritten), "pages that are in use are missing")
    if whole:
        _require(len(seen) + len(free_pages) == header.last_page - 1, "pages are neither free nor in use")
    return whole


def _written(file: int, header: Header) -> int:
    """How many pages the file holds, of those that the header counts."""
    return min(os.fstat(file).st_size // header.page_size, header.last_page + 1)


def _require(sound: bool, what: str) -> None:
    if not sound:
        raise ValueError(what)
