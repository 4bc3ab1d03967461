"""Types as text: what each text means, that names and texts are inverse, and what is refused, in one line."""

from __future__ import annotations

import pytest

from netopt.errors import InvalidArgument
from netopt.numerics import BFLOAT16, FLOAT32, INT64, SIGN_BITS, SIGNS, Affine, FixedPoint, NumberFormat
from netopt.quantized.types import TypeRefused, TypeWish, parse_type, position_text, shortened, type_name

WISHES = {
    "FLOAT32": TypeWish(kind="float32"),
    "SIGN": TypeWish(kind="sign", bits=1),
    "FIXED16": TypeWish(kind="fixed", bits=16),
    "FIXED16_12": TypeWish(kind="fixed", bits=16, n=12),
    "FIXED8": TypeWish(kind="fixed", bits=8),
    "FIXED8_-2": TypeWish(kind="fixed", bits=8, n=-2),
    "FIXED8_40": TypeWish(kind="fixed", bits=8, n=40),
    "FIXED4_3": TypeWish(kind="fixed", bits=4, n=3),
    "UFIXED8": TypeWish(kind="fixed", bits=8, signed=False),
    "UFIXED8_0": TypeWish(kind="fixed", bits=8, signed=False, n=0),
    "UFIXED7_5": TypeWish(kind="fixed", bits=7, signed=False, n=5),
    "AFFINE8": TypeWish(kind="affine", bits=8),
    "UAFFINE8": TypeWish(kind="affine", bits=8, signed=False),
}


@pytest.mark.parametrize("text", WISHES)
def test_a_text_names_a_type_and_the_type_is_written_so(text: str) -> None:
    assert parse_type(text) == WISHES[text]
    assert str(WISHES[text]) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FIXED9", "type FIXED9: bits: expected one of 2, 3, 4, 5, 6, 7, 8, 16 for signed codes, found 9"),
        ("UFIXED16_3", "type UFIXED16_3: bits: expected one of 7, 8 for unsigned codes, found 16"),
        ("AFFINE8_3", "n: expected fixed codes, which alone have one, found affine"),
        ("FIXED8_126", "integers from -112 to 125, found 126"),
        ("fixed8", "did you mean FIXED8?"),
        ("INT8", "did you mean FIXED8?"),
        ("uint8", "did you mean UFIXED8?"),
        ("FLOAT", "did you mean FLOAT32?"),
        ("FIXED8_5 ", "found 'FIXED8_5 '"),
        ("FIXED8_+5", "found 'FIXED8_+5'"),
        ("FIXED8_\u0665", "found 'FIXED8_\u0665'"),
        ("", "expected FLOAT32, FIXED16, FIXED8 or FIXED4"),
        ("x" * 1000, "found 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'"),
        ("a\nb", r"found 'a\nb'"),
    ],
)
def test_what_is_no_type_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_type(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wish_is_checked_when_it_is_built() -> None:
    with pytest.raises(InvalidArgument, match="kind of a type"):
        TypeWish(kind="double")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="n: expected fixed codes"):
        TypeWish(kind="sign", bits=1, n=3)


@pytest.mark.parametrize(
    ("text", "format_"),
    [
        ("FLOAT32", FLOAT32),
        ("SIGN", SIGNS),
        ("FIXED8", None),
        ("AFFINE8", None),
        ("FIXED16_-3", FixedPoint(16, -3)),
        ("UFIXED7_4", FixedPoint(7, 4, signed=False)),
    ],
)
def test_the_format_of_a_wish(text: str, format_: NumberFormat | None) -> None:
    assert parse_type(text).format == format_


@pytest.mark.parametrize("format_", [FLOAT32, FixedPoint(8, -2), FixedPoint(16, 40), FixedPoint(8, 5, signed=False)])
def test_the_name_of_a_format_is_parsed_as_that_format(format_: NumberFormat) -> None:
    assert parse_type(type_name(format_)).format == format_


@pytest.mark.parametrize(
    ("format_", "name", "position"),
    [
        (FixedPoint(8, (3, 5, 4)), "FIXED8", "3 to 5"),
        (FixedPoint(4, (3, 3)), "FIXED4_3", "3"),
        (FixedPoint(32, 17), "FIXED32_17", "17"),
        (FixedPoint(7, 4, signed=False), "UFIXED7_4", "4"),
        (Affine(8, 0.5), "AFFINE8", "scale 0.5"),
        (Affine(8, (0.5, 0.25), signed=False), "UAFFINE8", "scales 0.25 to 0.5"),
        (SIGN_BITS, "SIGN", ""),
        (BFLOAT16, "BFLOAT16", ""),
        (INT64, "INT64", ""),
    ],
)
def test_names_and_positions_of_formats(format_: NumberFormat, name: str, position: str) -> None:
    assert (type_name(format_), position_text(format_)) == (name, position)


def test_a_refused_type_names_its_variable() -> None:
    error = TypeRefused("conv1.weight", expected="+1 and -1", found="0.3", fix="leave it in FIXED8")
    assert error.variable == "conv1.weight"
    assert str(error) == "type of 'conv1.weight': expected +1 and -1, found 0.3; leave it in FIXED8"


def test_long_texts_are_shortened() -> None:
    assert shortened("abc") == "'abc'"
    assert shortened("abcdef", 3) == "'abc...'"
