"""Number formats, one a file: how the elements of a tensor are stored. `registry.py` lists them."""

from netopt.numerics.affine import Affine, round_scale
from netopt.numerics.bfloat16 import BFLOAT16, BFloat16
from netopt.numerics.boolean import BOOL, Boolean
from netopt.numerics.codes import CodeFormat
from netopt.numerics.fixed_point import FixedPoint
from netopt.numerics.float32 import FLOAT32, Float32
from netopt.numerics.format import ALIGNMENT, Array, ElementFormat, NumberFormat, Part, PartedFormat, Shape, align_up
from netopt.numerics.grouped import Grouped
from netopt.numerics.int32 import INT32, Int32
from netopt.numerics.int64 import INT64, Int64
from netopt.numerics.operations import SMALLEST_NORMAL, TORCH, Operations, flushed
from netopt.numerics.registry import FLOATS, WHOLES, format_of, number_format_from_json
from netopt.numerics.sign import SIGN_BITS, SIGNS, SignFormat, is_plus, pack_signs, unpack_signs
from netopt.numerics.uint8 import UINT8, UInt8
from netopt.numerics.whole import WholeFormat

__all__ = [
    "ALIGNMENT",
    "BFLOAT16",
    "BOOL",
    "FLOAT32",
    "FLOATS",
    "INT32",
    "INT64",
    "SIGNS",
    "SIGN_BITS",
    "SMALLEST_NORMAL",
    "TORCH",
    "UINT8",
    "WHOLES",
    "Affine",
    "Array",
    "BFloat16",
    "Boolean",
    "CodeFormat",
    "ElementFormat",
    "FixedPoint",
    "Float32",
    "Grouped",
    "Int32",
    "Int64",
    "NumberFormat",
    "Operations",
    "Part",
    "PartedFormat",
    "Shape",
    "SignFormat",
    "UInt8",
    "WholeFormat",
    "align_up",
    "flushed",
    "format_of",
    "is_plus",
    "number_format_from_json",
    "pack_signs",
    "round_scale",
    "unpack_signs",
]
