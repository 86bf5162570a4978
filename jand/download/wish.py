"""Between a model JSON and a plan: what the JSON wishes, and how a repository's own JSON fills what it leaves open. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from jand.download.plan import Wish
from jand.download.recommend import Use
from jand.model.fields import Part
from jand.model.spec import Init, Metadata, Runtime, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

P = TypeVar("P", bound=Part)


def wish_of(spec: Spec, *, stem: str = "", kept: tuple[str, ...] = ()) -> Wish:
    """Return what *spec* says about its binaries; *stem* is the name of its JSON without the ending, *kept* what an earlier plan chose."""
    init, metadata = spec.parameters.init, spec.metadata
    digests = metadata.sha256
    return Wish(
        origin=spec.origin,
        import_format=spec.import_format.value,
        download_url=tuple(spec.download_url),
        quantization=metadata.quantization,
        stem=stem,
        mmproj=metadata.mmproj,
        digests={"": digests} if isinstance(digests, str) else dict(digests or {}),
        use=Use(
            ctx_len=init.ctx_len,
            n_parallel=init.n_parallel or 1,
            cache_type_k=init.cache_type_k or "f16",
            cache_type_v=init.cache_type_v or "f16",
            on_gpu=init.ngl != 0,
        ),
        kept=kept,
        adapters=tuple(init.lora or ()),
        remote=spec.is_remote,
    )


def fill(spec: Spec, offered: Mapping[str, Any]) -> Spec:
    """Return *spec* with what it leaves open taken from *offered* (`Plan.defaults`), value by value; one that cannot be is left out."""
    if not offered:
        return spec
    parameters = spec.parameters.model_copy(
        update={
            "init": _filled(spec.parameters.init, offered["parameters"]["init"], Init),
            "runtime": _filled(spec.parameters.runtime, offered["parameters"]["runtime"], Runtime),
        }
    )
    update: dict[str, Any] = {
        "parameters": parameters,
        "metadata": _filled(spec.metadata, offered["metadata"], Metadata),
    }
    if not spec.download_url and not spec.metadata.quantization and offered.get("download_url"):
        update["download_url"] = tuple(offered["download_url"])
    return spec.model_copy(update=update)


def _filled(part: P, offered: Mapping[str, Any], kind: type[P]) -> P:
    values = part.given()
    for name, value in offered.items():
        if name in values:
            continue
        try:
            kind.model_validate({name: value})
        except ValidationError:
            continue
        values[name] = value
    return kind.model_validate(values)
