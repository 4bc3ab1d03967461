import pytest

from netopt.errors import FileFormatError, InvalidArgument, InvalidType, NetoptError, UnsupportedModel, name_of_layer


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NetoptError("rank"), "rank"),
        (NetoptError("rank", expected="1 to 10"), "rank: expected 1 to 10"),
        (NetoptError("rank", found=64), "rank: found 64"),
        (NetoptError("rank", expected="1 to 10", found=64), "rank: expected 1 to 10, found 64"),
        (NetoptError("rank", fix="give a fraction"), "rank; give a fraction"),
        (
            NetoptError("rank", expected="1 to 10", found=64, layer="fc1", fix="give a fraction"),
            "layer 'fc1': rank: expected 1 to 10, found 64; give a fraction",
        ),
        (NetoptError("rank", layer=""), "the model itself: rank"),
        # What was found is told even where Python takes it for false.
        (NetoptError("rounds", expected="at least 1", found=0), "rounds: expected at least 1, found 0"),
        (NetoptError("keys", found=[]), "keys: found []"),
        (NetoptError("flag", found=False), "flag: found False"),
    ],
)
def test_message(error: NetoptError, message: str) -> None:
    assert str(error) == message


def test_layer_is_kept_for_the_caller() -> None:
    assert InvalidArgument("rank", layer="fc1").layer == "fc1"
    assert InvalidArgument("rank", layer="").layer == ""
    assert InvalidArgument("rank").layer is None


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InvalidArgument, ValueError),
        (InvalidType, TypeError),
        (UnsupportedModel, Exception),
        (FileFormatError, Exception),
    ],
)
def test_each_error_is_a_netopt_error_and_the_builtin_one_that_callers_expect(
    kind: type[NetoptError], builtin: type[Exception]
) -> None:
    error = kind("subject", expected="this", found="that")
    assert isinstance(error, NetoptError)
    assert isinstance(error, builtin)
    assert str(error) == "subject: expected this, found that"


def test_name_of_layer() -> None:
    assert name_of_layer("features.0") == "layer 'features.0'"
    assert name_of_layer("") == "the model itself"
