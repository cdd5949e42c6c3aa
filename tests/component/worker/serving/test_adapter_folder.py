"""A folder of adapters, as it changes under a worker: what the engine holds and the card names."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from headrace.internal.v1.model_card_pb2 import Adapter, ModelCard
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.serving.adapter_folder import AdapterFolder
from helpers.random_adapters import write_adapter
from helpers.tiny_models import packed, random_model


class Shelf:
    """A folder, an engine, and the card that is kept in line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.card = ModelCard()
        bounds = {"adapters_dir": Path("adapters"), "max_adapters": 2, "max_adapter_rank": 4}
        self.engine: SlotEngine = packed(random_model("llama"), **bounds)
        self._adapters = AdapterFolder(folder, self.engine.adapters, self.card)

    def put(self, name: str, *, number: int, **config: object) -> None:
        """Make it elsewhere, then move it in."""
        made = self.folder.parent / f"made-{name}-{number}"
        write_adapter(made, random_model("llama"), number=number, **config)
        shutil.rmtree(self.folder / name, ignore_errors=True)
        made.rename(self.folder / name)

    async def scan(self) -> bool:
        return await self._adapters.scan(asyncio.to_thread)

    @property
    def on_card(self) -> dict[str, Adapter]:
        return {each.name: each for each in self.card.adapters}

    @property
    def bytes(self) -> int:
        return self.engine.statistics().adapter_bytes


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "adapters")


async def test_adapters_in_the_folder_are_reported_and_removed_ones_are_not(shelf: Shelf) -> None:
    assert not await shelf.scan()
    shelf.put("poet", number=1)
    assert await shelf.scan()
    assert shelf.on_card.keys() == {"poet"}
    assert shelf.on_card["poet"].digest.startswith("sha256:")
    assert not await shelf.scan()
    shutil.rmtree(shelf.folder / "poet")
    assert await shelf.scan()
    assert shelf.on_card == {}
    assert shelf.bytes == 0


async def test_other_files_under_a_name_are_another_adapter(shelf: Shelf) -> None:
    shelf.put("poet", number=1)
    await shelf.scan()
    first, held = shelf.on_card["poet"].digest, shelf.bytes
    shelf.put("poet", number=2)
    assert await shelf.scan()
    assert shelf.on_card["poet"].digest not in ("", first)
    assert shelf.bytes == held


async def test_one_adapter_under_two_names_stays_while_either_is_there(shelf: Shelf) -> None:
    shelf.put("poet", number=1)
    shutil.copytree(shelf.folder / "poet", shelf.folder / "bard")
    await shelf.scan()
    assert shelf.on_card["poet"].digest == shelf.on_card["bard"].digest
    shutil.rmtree(shelf.folder / "poet")
    await shelf.scan()
    assert shelf.on_card.keys() == {"bard"}
    assert shelf.bytes > 0


async def test_an_adapter_that_cannot_be_loaded_is_reported_with_the_reason_and_harms_no_other(
    shelf: Shelf,
) -> None:
    shelf.put("poet", number=1)
    shelf.put("giant", number=2, r=8)
    (shelf.folder / "empty").mkdir()
    await shelf.scan()
    assert shelf.on_card["giant"].failure == "its rank 8 is over 4"
    assert shelf.on_card["giant"].digest == ""
    assert "adapter_config.json cannot be read" in shelf.on_card["empty"].failure
    assert shelf.on_card["poet"].digest
    assert shelf.on_card["poet"].failure == ""


async def test_an_older_one_goes_on_where_its_new_files_are_damaged(shelf: Shelf) -> None:
    shelf.put("poet", number=1)
    await shelf.scan()
    before = shelf.on_card["poet"].digest
    (shelf.folder / "poet" / "adapter_model.safetensors").write_bytes(b"half of it")
    assert await shelf.scan()
    assert shelf.on_card["poet"].digest == before
    assert "is no safetensors file" in shelf.on_card["poet"].failure
    shelf.put("poet", number=3)
    await shelf.scan()
    assert shelf.on_card["poet"].digest != before
    assert shelf.on_card["poet"].failure == ""


async def test_one_beyond_the_bound_is_loaded_once_there_is_room(shelf: Shelf) -> None:
    for number, name in enumerate(("a", "b", "c")):
        shelf.put(name, number=number)
    await shelf.scan()
    assert shelf.on_card["c"].failure == "2 adapters are held, which is the bound"
    shutil.rmtree(shelf.folder / "a")
    await shelf.scan()
    assert shelf.on_card.keys() == {"b", "c"}
    assert shelf.on_card["c"].digest
    assert shelf.on_card["c"].failure == ""


async def test_names_that_no_request_can_have_are_skipped(shelf: Shelf) -> None:
    shelf.put("Poet", number=1)
    shelf.put(".poet", number=2)
    assert not await shelf.scan()
    assert shelf.on_card == {}


async def test_a_folder_that_cannot_be_read_changes_nothing(shelf: Shelf) -> None:
    shelf.put("poet", number=1)
    await shelf.scan()
    shelf.folder.rename(shelf.folder.parent / "away")
    assert not await shelf.scan()
    assert shelf.on_card.keys() == {"poet"}
