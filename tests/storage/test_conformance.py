"""Both stores of the package keep the promises that any store must keep."""

from __future__ import annotations

from pathlib import Path

import pytest
from perdure.storage import MemoryDisk, MemoryStore, Store, open_store
from perdure.storage._lmdb import LmdbStore
from perdure.storage.conformance import StoreConformance

pytestmark = pytest.mark.promise("any-store-keeps-the-contract")


class TestMemoryStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def disks(self) -> None:
        self.disk = MemoryDisk()

    def open_store(self, place: Path) -> Store:
        return MemoryStore(self.disk)


class TestLmdbStore(StoreConformance):
    def open_store(self, place: Path) -> Store:
        return open_store(f"lmdb:{place / 'store'}")


class TestLmdbStoreWithATinyMap(StoreConformance):
    def open_store(self, place: Path) -> Store:
        return LmdbStore(str(place / "store"), map_size=1 << 20, ballast_size=0)
