"""The cache of headers: nothing is read twice, nothing stale is ever told, and its file may be in any state."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from jand.errors import GgufError, IncompleteGgufError, LegacyGgmlError
from jand.library.headers import HeaderCache, Recent, is_racy, make_stamp
from tests.fakes import gguf_files
from tests.fakes.waiting import until_sync

if TYPE_CHECKING:
    from pathlib import Path

    from jand.library.findings import Stamp

TEMPLATE = "{% for message in messages %}" * 40


def aged(path: Path) -> Stamp:
    """Return the stamp of *path* once the file may be remembered."""
    until_sync(lambda: not is_racy(make_stamp(path.stat())), what="the file to age")
    return make_stamp(path.stat())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return gguf_files.bare_header(tmp_path / "m.gguf", name="Ada", chat_template=TEMPLATE)


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    return tmp_path / "state/headers"


def saved(cache_file: Path, *models: Path) -> HeaderCache:
    cache = HeaderCache(cache_file)
    for model in models:
        cache.get(model, aged(model))
    cache.save()
    return cache


def test_a_header_is_read_once_and_known_after_a_restart(cache_file: Path, model: Path) -> None:
    stamp = aged(model)
    header = saved(cache_file, model).get(model, stamp)
    model.rename(model.with_name("away"))

    again = HeaderCache(cache_file).get(model, stamp)

    assert again == header
    assert (again.name, again.chat_template) == ("Ada", TEMPLATE)
    assert hash(again) == hash(header), "lists became tuples again"


def test_a_template_of_many_models_is_kept_once(cache_file: Path, tmp_path: Path) -> None:
    models = [gguf_files.bare_header(tmp_path / f"{number}.gguf", chat_template=TEMPLATE) for number in range(20)]

    saved(cache_file, *models)

    assert cache_file.read_text().count(TEMPLATE) == 1
    fresh = HeaderCache(cache_file)
    assert {fresh.get("gone", aged(model)).chat_template for model in models} == {TEMPLATE}


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-1],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw + b"x",
        lambda raw: raw.replace(b"Ada", b"Eve"),
        lambda raw: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        lambda raw: b"[" * 100_000,
        lambda raw: os.urandom(5000),
        lambda raw: raw.split(b"\n", 1)[0] + b"\n",
    ],
)
def test_a_damaged_file_counts_as_empty(cache_file: Path, model: Path, damage: object) -> None:
    saved(cache_file, model)
    assert callable(damage)
    cache_file.write_bytes(damage(cache_file.read_bytes()))

    cache = HeaderCache(cache_file)

    assert cache.recall(aged(model)) is None
    assert cache.get(model, aged(model)).name == "Ada"
    cache.save()
    assert HeaderCache(cache_file).recall(aged(model)) is not None


def test_any_flipped_bit_is_noticed(cache_file: Path, model: Path, soak: bool) -> None:
    saved(cache_file, model)
    raw = cache_file.read_bytes()
    stamp = aged(model)
    known = HeaderCache(cache_file).recall(stamp)

    for at in range(0, len(raw), 1 if soak else 17):
        cache_file.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        assert HeaderCache(cache_file).recall(stamp) in (None, known)


def test_the_file_may_be_deleted_or_a_folder_at_any_time(cache_file: Path, model: Path) -> None:
    cache = saved(cache_file, model)
    cache_file.unlink()
    other = gguf_files.bare_header(model.with_name("other.gguf"))
    cache.get(other, aged(other))
    cache.save()
    assert HeaderCache(cache_file).recall(aged(model)) is not None

    cache_file.unlink()
    cache_file.mkdir()
    third = gguf_files.bare_header(model.with_name("third.gguf"))
    cache.get(third, aged(third))
    cache.save()
    assert HeaderCache(cache_file).get(model, aged(model)).name == "Ada"


def test_a_cache_without_a_file_writes_none(tmp_path: Path, model: Path) -> None:
    before = sorted(tmp_path.iterdir())
    cache = HeaderCache(None)
    cache.get(model, aged(model))
    cache.save()

    assert sorted(tmp_path.iterdir()) == before


def test_an_unchanged_cache_is_not_written_again(cache_file: Path, model: Path) -> None:
    cache = saved(cache_file, model)
    before = cache_file.stat().st_ino
    cache.get(model, aged(model))
    cache.save()

    assert cache_file.stat().st_ino == before


def test_a_rewrite_with_the_size_and_the_time_of_before_is_noticed(cache_file: Path, model: Path) -> None:
    before = aged(model)
    saved(cache_file, model)
    content = model.read_bytes()
    with model.open("r+b") as stream:
        stream.write(content.replace(b"Ada", b"Eve"))
    os.utime(model, ns=(before.mtime_ns, before.mtime_ns))
    after = aged(model)

    assert (after.size, after.mtime_ns, after.inode) == (before.size, before.mtime_ns, before.inode)
    assert HeaderCache(cache_file).get(model, after).name == "Eve"


def test_what_was_changed_a_moment_ago_is_not_remembered(model: Path) -> None:
    """The clock of a file system may stand still between two writes."""
    cache = HeaderCache(None)
    future = time.time_ns() + 10**9
    os.utime(model, ns=(future, future))
    model.write_bytes(model.read_bytes())
    stamp = make_stamp(model.stat())
    assert cache.get(model, stamp).name == "Ada"

    if is_racy(stamp):
        assert cache.recall(stamp) is None
    assert cache.get(model, aged(model)).name == "Ada"
    assert cache.recall(aged(model)) is not None


def test_a_file_that_became_another_is_to_be_looked_at_again(model: Path) -> None:
    stamp = aged(model)
    gguf_files.bare_header(model.with_name("new"), name="New").replace(model)

    with pytest.raises(IncompleteGgufError, match="changed"):
        HeaderCache(None).get(model, stamp)


def test_what_is_wrong_is_remembered_as_well_but_not_over_a_restart(cache_file: Path, tmp_path: Path) -> None:
    page, old = tmp_path / "page.gguf", tmp_path / "old.gguf"
    page.write_text("<html>")
    old.write_bytes(b"lmgg" + bytes(100))
    cache = HeaderCache(cache_file)
    stamps = [aged(page), aged(old)]
    with pytest.raises(GgufError, match="web page"):
        cache.get(page, stamps[0])
    with pytest.raises(LegacyGgmlError):
        cache.get(old, stamps[1])
    page.unlink()
    old.unlink()

    with pytest.raises(GgufError, match="web page"):
        cache.get(page, stamps[0])
    cache.save()
    assert HeaderCache(cache_file).recall(stamps[0]) is None


def test_it_holds_no_more_than_its_limit(cache_file: Path, tmp_path: Path) -> None:
    cache = HeaderCache(cache_file, limit=16)
    models = [gguf_files.bare_header(tmp_path / f"{number}.gguf") for number in range(50)]
    for model in models:
        cache.get(model, aged(model))

    assert len(cache) <= 16
    assert cache.recall(aged(models[-1])) is not None
    cache.save()
    assert len(HeaderCache(cache_file)) <= 16


def test_what_nobody_asked_for_since_the_start_is_kept(cache_file: Path, model: Path) -> None:
    """Its disk may be away today."""
    saved(cache_file, model)
    other = gguf_files.bare_header(model.with_name("other.gguf"))

    saved(cache_file, other)

    assert HeaderCache(cache_file).recall(aged(model)) is not None
    assert HeaderCache(cache_file).recall(aged(other)) is not None


def test_only_the_newest_content_of_a_file_is_held() -> None:
    recent: Recent[int] = Recent(10)
    from jand.library.findings import Stamp

    for size in range(1000):
        recent.keep(Stamp(1, 2, size, 0, 0), size)

    assert len(recent) == 1
    assert recent.find(Stamp(1, 2, 999, 0, 0)) == 999
    assert recent.find(Stamp(1, 2, 5, 0, 0)) is None


def test_threads_may_read_and_save_at_once(cache_file: Path, tmp_path: Path) -> None:
    models = [gguf_files.bare_header(tmp_path / f"{number}.gguf", name=str(number)) for number in range(40)]
    stamps = [aged(model) for model in models]
    cache = HeaderCache(cache_file, limit=20)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(5):
            for number, model in enumerate(models):
                if cache.get(model, stamps[number]).name != str(number):
                    wrong.append(model.name)
            cache.save()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert len(HeaderCache(cache_file)) > 0
