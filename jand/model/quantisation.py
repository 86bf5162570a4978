"""Quantisations: their names as people write them, their sizes, and which is better than which.

Three things carry the name of a quantisation and must be kept apart: a *tensor type* (how one tensor is stored, with an exact size), a *file type* (the recipe of a
whole file, which mixes tensor types), and what a file *name* says. The canonical name of a file type, upper case and without aliases, is what the rest of jand uses.
The numbers are those of llama.cpp: `ggml_type`, `llama_ftype`, and the measurements in its quantize README (Llama 3.1 8B); what that leaves out is estimated from published files.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from jand.model.immutable import immutable


class TensorType(NamedTuple):
    """*block* elements are stored in *nbytes* bytes."""

    name: str
    block: int
    nbytes: int


TENSOR_TYPES: Final[dict[int, TensorType]] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 36),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
    42: TensorType("Q2_0", 64, 18),
}

REMOVED_TENSOR_TYPES: Final[dict[int, str]] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
"""Types that llama.cpp once had and refuses now; their numbers are never given to another."""

FILE_TYPES: Final[dict[int, str]] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    33: "Q4_0_4_4",
    34: "Q4_0_4_8",
    35: "Q4_0_8_8",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
"""`general.file_type` of a header to the canonical name; `GUESSED` may be added to any of them."""

GUESSED: Final = 1024

_BITS_PER_WEIGHT: Final[dict[str, float]] = {
    "F32": 32.0,
    "BF16": 16.0,
    "F16": 16.0,
    "Q8_K_XL": 10.8,
    "Q8_0": 8.5,
    "Q6_K_XL": 7.5,
    "Q6_K_L": 6.7,
    "Q6_K": 6.56,
    "Q5_K_XL": 5.8,
    "Q5_K_L": 5.87,
    "Q5_K_M": 5.7,
    "Q5_K_S": 5.57,
    "Q5_1": 6.04,
    "Q5_0": 5.57,
    "Q4_K_XL": 5.0,
    "Q4_K_L": 5.1,
    "Q4_K_M": 4.89,
    "Q4_K_S": 4.67,
    "NVFP4": 4.7,
    "MXFP4_MOE": 4.6,
    "IQ4_NL": 4.68,
    "IQ4_XS": 4.46,
    "Q4_1": 5.11,
    "Q4_0": 4.64,
    "Q3_K_XL": 4.5,
    "Q3_K_L": 4.3,
    "Q3_K_M": 4.0,
    "IQ3_M": 3.76,
    "IQ3_S": 3.66,
    "IQ3_XS": 3.5,
    "Q3_K_S": 3.64,
    "IQ3_XXS": 3.25,
    "Q2_K_XL": 3.4,
    "Q2_K_L": 3.4,
    "Q2_K": 3.16,
    "IQ2_M": 2.93,
    "Q2_K_S": 2.97,
    "IQ2_S": 2.74,
    "IQ2_XS": 2.59,
    "IQ2_XXS": 2.38,
    "Q2_0": 2.6,
    "TQ2_0": 2.4,
    "IQ1_M": 2.15,
    "IQ1_S": 2.0,
    "TQ1_0": 2.0,
    "Q1_0": 1.5,
}

BY_QUALITY: Final[tuple[str, ...]] = tuple(_BITS_PER_WEIGHT)
"""Every canonical name, the best first: by the perplexity that llama.cpp measured, not by size (`Q4_0` is larger than `IQ4_XS` and worse)."""

_RANK: Final[dict[str, int]] = {name: rank for rank, name in enumerate(BY_QUALITY)}

_ALIASES: Final[dict[str, str]] = {
    "Q3_K": "Q3_K_M",
    "Q4_K": "Q4_K_M",
    "Q5_K": "Q5_K_M",
    "FP16": "F16",
    "FP32": "F32",
    "MXFP4": "MXFP4_MOE",
    "Q2": "Q2_K",
    "Q3": "Q3_K_M",
    "Q4": "Q4_K_M",
    "Q5": "Q5_K_M",
    "Q6": "Q6_K",
    "Q8": "Q8_0",
}
"""llama-quantize's own aliases, and what people write for short. `Q2` to `Q8` alone count only where a name says nothing more exact."""

_EXACT = re.compile(
    r"""(?<![A-Z0-9])
    ( (?:UD-)?
      (?: Q[2-8][_-]K (?:[_-](?:XL|[SML]))?
        | IQ[1-4]_(?:XXS|XS|NL|[SM])
        | T?Q[1-8]_[01] (?:_[48]_[48])?
        | MXFP4 (?:_MOE)? | NVFP4
        | BF16 | FP?16 | FP?32
      )
    ) (?![A-Z0-9])""",
    re.VERBOSE,
)
_SHORT = re.compile(r"(?<![A-Z0-9])(Q[234568])(?![A-Z0-9])")
_SPLIT = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf", re.IGNORECASE | re.DOTALL)


@immutable()
class SplitPart:
    """One file of a model cut into *count*; *no* counts from 1. *prefix* keeps the folder."""

    prefix: str
    no: int
    count: int


def find_quantization(name: str) -> str | None:
    """Find the canonical name of the quantisation that a file's (or a model's) *name* or path states: the last one, as hubs read it.

    Takes the many styles in use: `zephyr.Q2_K.gguf`, `ggml-model-q4_k.gguf`, `UD-Q4_K_XL` (whose `UD-` stays, since such a file lies beside one without), `fp16`,
    `mxfp4`, a folder `Q4_K_M/`, a split part.
    """
    upper = name.upper()
    found = _EXACT.findall(upper)
    if not found:
        found = _SHORT.findall(upper)
    return canonical(found[-1]) if found else None


def canonical(name: str) -> str:
    """Bring the name of a quantisation, as a person or a header writes it, to the one form that is compared; an unknown one only to upper case."""
    upper = name.strip().upper()
    prefix = "UD-" if upper.startswith("UD-") else ""
    plain = upper.removeprefix("UD-").replace("-", "_")
    return prefix + _ALIASES.get(plain, plain)


def file_type_name(file_type: int | None) -> str | None:
    """Translate `general.file_type`; None where it is missing or newer than this table."""
    return None if file_type is None else FILE_TYPES.get(file_type & ~GUESSED)


def bits_per_weight(name: str) -> float | None:
    """Return the usual bits for each parameter of a whole 8B file, None for an unknown name.

    Small models take more, since their embeddings weigh more and keep more bits: SmolLM2-135M as `Q4_1` takes 5.74.
    """
    return _BITS_PER_WEIGHT.get(canonical(name).removeprefix("UD-"))


def quality(name: str) -> int | None:
    """Rank a quantisation: 0 is the best, a larger number is worse, None is unknown. A `UD-` one ranks as its plain namesake."""
    return _RANK.get(canonical(name).removeprefix("UD-"))


def no_better_than(name: str) -> tuple[str, ...]:
    """List *name* and all that are worse, the best first: the order in which a machine looks for one that fits."""
    rank = quality(name)
    return () if rank is None else BY_QUALITY[rank:]


def split_part(name: str) -> SplitPart | None:
    """Take apart the name of a split part, `prefix-00001-of-00003.gguf`; None for any other name, also where the numbers cannot be."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return None
    no, count = int(match[2]), int(match[3])
    return SplitPart(match[1], no, count) if 1 <= no <= count else None


def split_names(name: str) -> tuple[str, ...]:
    """List all the parts that belong with the part *name*, in order; just *name* where it is no part."""
    part = split_part(name)
    if part is None:
        return (name,)
    ending = name[-len(".gguf") :]
    return tuple(f"{part.prefix}-{no:05d}-of-{part.count:05d}{ending}" for no in range(1, part.count + 1))


def is_projector_name(name: str) -> bool:
    """Tell a projector by its name alone, for files that cannot be read (yet)."""
    base = _base(name).lower()
    return "mmproj" in base or base.endswith(".proj")


# Lower case only, as in llama.cpp: a whole model with its draft layers may be called "...-MTP-Q4_K_M.gguf".
_HELPERS = re.compile(r"(?<![a-z0-9])(?:mtp|eagle3|dflash|dspark)-")
_ADAPTER = re.compile(r"^(?:ggml[-_.])?(?:lora|adapter)(?![a-z])|(?<![a-z])(?:lora|adapter)$", re.IGNORECASE)
_VOCABULARY = re.compile(r"^(?:ggml[-_.])?vocab(?![a-z])", re.IGNORECASE)
_FULL_PRECISION: Final = frozenset({None, "F16", "BF16", "F32"})


def is_side_file(name: str) -> bool:
    """Tell by its name alone whether a file only goes with a model and is none: projector, importance matrix, draft heads, LoRA, bare vocabulary.

    A quantised file "made with an imatrix" is a model; the matrix itself is named after the full-precision file that it was computed from.
    """
    base = _base(name)
    stem = base.rpartition(".")[0] or base
    quantization = find_quantization(base)
    if is_projector_name(name) or _HELPERS.search(base) or _VOCABULARY.match(stem):
        return True
    if "imatrix" in base.lower():
        return quantization in _FULL_PRECISION
    return _ADAPTER.search(_without_quantization(stem)) is not None


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _without_quantization(stem: str) -> str:
    """Cut a stem before its last quantisation: `x-lora-f16` to `x-lora`."""
    matches = list(_EXACT.finditer(stem.upper()))
    return stem[: matches[-1].start()].rstrip("-._ ") if matches else stem
