"""When a download that brings several files is done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jand.library.findings import Binary, Role, Stamp
from jand.lifecycle.awaited import outstanding
from tests.fakes.records import make_found

PLAN = ("weights.gguf", "mmproj.gguf")


@pytest.mark.parametrize(
    ("here", "awaited", "expected"),
    [
        ((), (), ()),
        ((), PLAN, PLAN),
        (("weights.gguf",), PLAN, ("mmproj.gguf",)),
        (("weights.gguf", "mmproj.gguf"), PLAN, ()),
        (("other.gguf",), PLAN, ()),
        (("weights.gguf", "their-mmproj.gguf"), PLAN, ()),
        (("weights.gguf",), (), ()),
    ],
)
def test_what_is_to_come_is_what_is_not_there_unless_somebody_put_something_else_there(
    here: tuple[str, ...], awaited: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    binaries = tuple(Binary(name, f"/x/{name}", Role.WEIGHTS, stamp=Stamp(1, 2, 3, 4, 5)) for name in here)

    assert outstanding(replace(make_found(), binaries=binaries), awaited) == expected


def test_a_file_that_is_only_named_is_not_there() -> None:
    absent = Binary("weights.gguf", "/x/weights.gguf", Role.WEIGHTS)

    assert outstanding(replace(make_found(), binaries=(absent,)), PLAN) == PLAN
