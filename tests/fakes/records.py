"""Records and findings for tests, made the way the daemon makes them: from a JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jand.library.findings import Binary, Found, Role, Stamp
from jand.model.document import parse
from jand.model.record import PublicState, Record

if TYPE_CHECKING:
    from jand.model.spec import Spec


def make_spec(**fields: Any) -> Spec:
    """Make a spec from the fields of a model JSON; `origin` is filled in."""
    document = parse(json.dumps({"origin": "tests/model", **fields}).encode(), "models/test.json")
    assert document.spec is not None, document.problems
    return document.spec


def make_record(model_id: str, **changes: Any) -> Record:
    record = Record(
        id=model_id,
        path=f"models/{model_id}/{model_id}.json",
        created=1_686_935_002,
        owned_by="tests",
        state=PublicState.DOWNLOADED,
        spec=make_spec(),
    )
    return dataclasses.replace(record, **changes)


def make_found(
    path: str = "models/a/a.json", *, directory: Path | None = None, whole: bool = True, **fields: Any
) -> Found:
    """Make what a scan finds: one JSON with one binary, whole or still arriving (half of 100 bytes there)."""
    folder = directory or Path("/nowhere") / Path(path).parent
    size = 100 if whole else 50
    binary = Binary(
        name="weights.gguf",
        place=f"{folder}/weights.gguf",
        role=Role.WEIGHTS,
        size=size,
        needed=100,
        whole=whole,
        owned=True,
        stamp=Stamp(1, abs(hash(path)), size, 1, 1),
    )
    return Found(
        path=path,
        folder=str(Path(path).parent),
        place=str(folder),
        spec=make_spec(**fields),
        stamp=Stamp(1, 2, 10, 1_686_935_002_000_000_000, 1),
        binaries=(binary,),
    )
