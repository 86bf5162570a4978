"""Plain immutable values, of which a scan makes some tens for every model that lies on the disk.

The guard that `dataclass(frozen=True)` puts around every assignment in `__init__` makes it eight times as slow as the bare one, which was a second at 10,000 models. Here the type checker is the
guard: it takes these classes for frozen, and it runs as a test.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def immutable(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a slotted dataclass that compares and hashes by its fields, which nobody may assign to."""
    return dataclasses.dataclass(slots=True, unsafe_hash=True, kw_only=kw_only)
