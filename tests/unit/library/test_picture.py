"""What is told, and what is held back because a disk is away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jand.library.findings import EntryScan, Found, Stamp, Tree
from jand.library.picture import TREE, Anchor, Picture, Place, Sight
from jand.library.stamps import EntryStamp
from jand.model.problem import Problem
from jand.model.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

HOME: Place = ("/", "8:1")
USB: Place = ("/mnt/usb", "8:17")
USB_AGAIN: Place = ("/mnt/usb", "8:33")

MODELS = Tree(Path("/janroot/models"), "models")
SPEC = Spec.model_validate({"origin": "https://api.openai.com"})
PROBLEM = Problem("models/phi", "broken-link", "cannot follow it")


def found(path: str) -> Found:
    return Found(path, path.rpartition("/")[0], "/janroot", SPEC, Stamp(1, 2, 3, 4, 5))


def look(
    *models: str,
    entry: str = "phi",
    place: Place = HOME,
    then: Mapping[str, Place] | None = None,
    anchors: Mapping[str, Anchor] | None = None,
    exists: bool = True,
    offline: bool = False,
    value: int = 1,
    targets: tuple[str, ...] = (),
    problems: tuple[Problem, ...] = (),
) -> Sight:
    """Return what one look at an entry gives that lies in *place*; *then* is where the anchors of the last look lie now."""
    scan = EntryScan(MODELS, entry, exists=exists, models=tuple(map(found, models)), offline=offline, problems=problems)
    stamp = EntryStamp(value, targets=targets) if exists else None
    own = {TREE: Anchor("/janroot/models", place)} | dict(anchors or {})
    return Sight(("models", entry), scan, stamp, own, {TREE: place} if then is None else then, polled=bool(targets))


def told(picture: Picture, sight: Sight) -> EntryScan:
    news = picture.take_in(sight)
    assert news is not None
    return news


def paths(scan: EntryScan) -> list[str]:
    return [model.path for model in scan.models]


def test_only_news_is_told() -> None:
    picture = Picture()
    assert paths(told(picture, look("models/phi/a.json"))) == ["models/phi/a.json"]
    assert picture.take_in(look("models/phi/a.json", value=2)) is None
    assert picture.stamps["models", "phi"] == EntryStamp(2)
    assert paths(told(picture, look("models/phi/b.json"))) == ["models/phi/b.json"]


def test_what_goes_is_told_once_and_forgotten() -> None:
    picture = Picture()
    picture.take_in(look("models/phi/a.json"))
    assert not told(picture, look(exists=False)).exists
    assert picture.keys("models") == set()
    assert picture.take_in(look(exists=False)) is None


def test_what_was_never_there_is_not_told_to_be_gone() -> None:
    assert Picture().take_in(look(exists=False)) is None


def test_a_tree_on_another_disk_loses_nothing() -> None:
    picture = Picture()
    picture.take_in(look("models/phi/a.json", place=USB))
    news = told(picture, look(exists=False, place=HOME, then={TREE: HOME}))

    assert (news.offline, paths(news)) == (True, ["models/phi/a.json"])
    assert news.problems[0].code == "root-offline"
    assert picture.held == {("models", "phi")}
    assert picture.take_in(look(exists=False, place=HOME, then={TREE: HOME})) is None


def test_a_tree_that_is_back_on_its_disk_is_believed() -> None:
    picture = Picture()
    picture.take_in(look("models/phi/a.json", place=USB))
    picture.take_in(look(exists=False, place=HOME, then={TREE: HOME}))

    assert not told(picture, look(exists=False, place=USB, then={TREE: USB})).exists
    assert picture.held == set()


def test_a_disk_that_comes_back_under_another_number_is_known_by_what_lies_on_it() -> None:
    picture = Picture()
    for entry in ("phi", "psi"):
        picture.take_in(look(f"models/{entry}/a.json", entry=entry, place=USB))
        picture.take_in(look(entry=entry, exists=False, place=HOME, then={TREE: HOME}))
    assert picture.take_in(look(entry="psi", exists=False, place=USB_AGAIN, then={TREE: USB_AGAIN})) is None
    assert not told(picture, look("models/phi/a.json", place=USB_AGAIN, then={TREE: USB_AGAIN})).offline

    assert not told(picture, look(entry="psi", exists=False, place=USB_AGAIN, then={TREE: USB_AGAIN})).exists


def test_another_tree_with_models_of_its_own_is_believed() -> None:
    picture = Picture()
    picture.take_in(look("models/phi/a.json", place=USB))
    news = told(picture, look("models/phi/new.json", place=HOME, then={TREE: HOME}))
    assert (news.offline, paths(news)) == (False, ["models/phi/new.json"])


def test_a_link_that_leads_nowhere_holds_what_it_led_to() -> None:
    picture = Picture()
    picture.take_in(look("models/phi/a.json"))
    news = told(picture, look(offline=True, problems=(PROBLEM,)))
    assert (news.offline, paths(news), news.problems) == (True, ["models/phi/a.json"], (PROBLEM,))
    assert not told(picture, look("models/phi/a.json")).offline


def test_a_link_that_never_led_anywhere_is_only_a_problem() -> None:
    news = told(Picture(), look(offline=True, problems=(PROBLEM,)))
    assert (news.models, news.problems) == ((), (PROBLEM,))


LINKED = {"models/phi/a.json": Anchor("/mnt/usb/a.json", USB)}


def test_a_model_behind_a_link_to_a_disk_that_is_away_stays() -> None:
    picture = Picture()
    picture.take_in(look("models/phi/a.json", "models/phi/b.json", anchors=LINKED))
    news = told(picture, look("models/phi/b.json", then={TREE: HOME, "models/phi/a.json": HOME}))
    assert (news.offline, paths(news)) == (True, ["models/phi/a.json", "models/phi/b.json"])


def test_a_model_removed_from_a_disk_that_is_there_goes() -> None:
    picture = Picture()
    picture.take_in(look("models/phi/a.json", "models/phi/b.json", anchors=LINKED))
    news = told(picture, look("models/phi/b.json", then={TREE: HOME, "models/phi/a.json": USB}))
    assert (news.offline, paths(news)) == (False, ["models/phi/b.json"])


def test_a_link_that_was_removed_takes_its_models_with_it_wherever_its_disk_is() -> None:
    picture = Picture()
    picture.take_in(look("models/phi/a.json", anchors=LINKED))
    assert not told(picture, look(exists=False, then={TREE: HOME, "models/phi/a.json": HOME})).exists


def test_links_are_gathered_by_where_they_lead_and_their_change_is_noted() -> None:
    picture = Picture()
    picture.take_in(look(targets=("/far/x", "/far/y")))
    picture.take_in(look(entry="psi", targets=("/far/x",)))
    picture.take_in(look(entry="plain"))
    assert picture.relinked == {"models"}
    assert picture.links("models") == {"/far/x": {"phi", "psi"}, "/far/y": {"phi"}}
    assert picture.links("/other") == {}
    assert picture.relinked == set()
    picture.take_in(look(entry="psi", value=7, targets=("/far/x",)))
    assert picture.relinked == set()
