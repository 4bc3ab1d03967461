"""Number formats, one a file: how the elements of a tensor are stored. `registry.py` lists them."""

from netopt.numerics.bfloat16 import BFLOAT16, BFloat16
from netopt.numerics.fixed_point import FixedPoint
from netopt.numerics.float32 import FLOAT32, Float32
from netopt.numerics.format import ALIGNMENT, Array, ElementFormat, NumberFormat, Part, PartedFormat, Shape, align_up
from netopt.numerics.int32 import INT32, Int32
from netopt.numerics.operations import SMALLEST_NORMAL, TORCH, Operations, flushed
from netopt.numerics.registry import FLOATS, number_format_from_json
from netopt.numerics.sign import SIGN_BITS, SIGNS, SignFormat, is_plus, pack_signs, unpack_signs

__all__ = [
    "ALIGNMENT",
    "BFLOAT16",
    "FLOAT32",
    "FLOATS",
    "INT32",
    "SIGNS",
    "SIGN_BITS",
    "SMALLEST_NORMAL",
    "TORCH",
    "Array",
    "BFloat16",
    "ElementFormat",
    "FixedPoint",
    "Float32",
    "Int32",
    "NumberFormat",
    "Operations",
    "Part",
    "PartedFormat",
    "Shape",
    "SignFormat",
    "align_up",
    "flushed",
    "is_plus",
    "number_format_from_json",
    "pack_signs",
    "unpack_signs",
]
