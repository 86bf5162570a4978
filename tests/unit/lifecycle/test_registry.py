"""The registry follows from scans: who is registered, under which id, and who is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jand.errors import ModelNotFoundError
from jand.library.findings import EntryScan, Found, Tree
from jand.lifecycle.admission import Admission
from jand.lifecycle.notes import Notes
from jand.lifecycle.registry import Registry
from jand.lifecycle.tally import Tally
from jand.tasks import TaskSet
from tests.fakes.engine import FakeEngine
from tests.fakes.records import make_found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.lifecycle.actor import Actor
    from jand.model.problem import Problem


class House:
    """What stands around a registry; keeps what it is told."""

    def __init__(self) -> None:
        self.tasks = TaskSet()
        self.start_on_request = True
        self.stop_timeout_s = 1.0
        self.keep_alive_s = -1.0
        self.admission = Admission(10**12, Notes(Path("/nowhere/state.json")))
        self.tally = Tally()
        self.launch = FakeEngine().launch
        self.told: list[str] = []
        self.id_problems: list[Problem] = []
        self.registry = Registry(self, self, self.take_problems)

    def take_problems(self, problems: Sequence[Problem]) -> None:
        self.id_problems = list(problems)

    def changed(self, actor: Actor) -> None: ...

    def registered(self, actor: Actor) -> None:
        self.told.append(f"+{actor.id}")

    def found_again(self, actor: Actor) -> None: ...

    def removed(self, actor: Actor) -> None:
        self.told.append(f"-{actor.id}")

    def scan(self, tree: Tree, entry: str, *models: Found) -> None:
        self.registry.absorb(EntryScan(tree, entry, exists=bool(models), models=models))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path, "models")


def test_a_scan_registers_and_an_empty_one_removes(tree: Tree) -> None:
    house = House()
    house.scan(tree, "a", make_found("models/a/a.json"))
    assert house.told == []
    house.registry.flush()
    assert house.told == ["+a"]
    house.scan(tree, "a")
    house.registry.flush()

    assert house.told == ["+a", "-a"]
    with pytest.raises(ModelNotFoundError):
        house.registry.get("a")


def test_the_same_scan_again_changes_nothing(tree: Tree) -> None:
    house = House()
    for _ in range(3):
        house.scan(tree, "a", make_found("models/a/a.json"))
        house.registry.flush()

    assert house.told == ["+a"]


def test_two_files_that_claim_one_id(tree: Tree) -> None:
    """The path that sorts first keeps it, in whatever order they came; when it goes, the other gets it."""
    house = House()
    house.scan(tree, "b", make_found("models/b/model.json", id="same"))
    house.registry.flush()
    assert house.registry.get("same").found.path == "models/b/model.json"
    house.scan(tree, "a", make_found("models/a/model.json", id="same"))
    house.registry.flush()

    assert house.registry.get("same").found.path == "models/a/model.json"
    assert house.registry.get("b/model").found.path == "models/b/model.json"
    assert len(house.id_problems) == 1
    assert house.id_problems[0].path == "models/b/model.json"
    house.scan(tree, "a")
    house.registry.flush()
    assert house.registry.get("same").found.path == "models/b/model.json"
    assert house.id_problems == []


def test_an_explicit_id_keeps_the_file_name_as_an_alias(tree: Tree) -> None:
    house = House()
    house.scan(tree, "a", make_found("models/a/zephyr.json", id="my-zephyr"))
    house.registry.flush()

    assert house.registry.get("zephyr") is house.registry.get("my-zephyr")


def test_a_near_miss_is_named(tree: Tree) -> None:
    house = House()
    house.scan(tree, "a", make_found("models/a/zephyr-7b.json"))
    house.registry.flush()
    with pytest.raises(ModelNotFoundError) as caught:
        house.registry.get("zefyr-7b")

    assert "zephyr-7b" in caught.value.hint


def test_an_actor_survives_a_change_of_its_json(tree: Tree) -> None:
    house = House()
    found = make_found("models/a/a.json")
    house.scan(tree, "a", found)
    house.registry.flush()
    actor = house.registry.get("a")
    house.scan(tree, "a", dataclasses.replace(found, spec=make_found(id="other").spec))
    house.registry.flush()

    assert house.registry.get("other") is actor
    assert house.told == ["+a"]
