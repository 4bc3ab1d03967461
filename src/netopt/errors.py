"""Every error that a user of netopt can cause.

A message says where the problem is, what was expected, what was found and what to do, in that order:

    layer 'fc1': rank: expected an integer from 1 to 10, found 64; give a fraction, such as SVD(rank=0.25)

`assert` is kept for netopt's own bugs.
"""


class NetoptError(Exception):
    """An error that the caller can act on.

    Args:
        subject: what is wrong ("rank", "input 'x'", "net.nopt").
        expected: what would have been right.
        found: what was there instead.
        layer: qualified name of the layer concerned; the empty name is the model itself.
        fix: what to do about it.
    """

    def __init__(
        self,
        subject: str,
        *,
        expected: str | None = None,
        found: object = None,
        layer: str | None = None,
        fix: str | None = None,
    ) -> None:
        where = "" if layer is None else f"{name_of_layer(layer)}: "
        states = []
        if expected is not None:
            states.append(f"expected {expected}")
        if found is not None:
            states.append(f"found {found}")
        message = where + subject
        if states:
            message += ": " + ", ".join(states)
        if fix is not None:
            message += f"; {fix}"
        super().__init__(message)
        self.layer = layer
        self.fix = fix


class InvalidArgument(NetoptError, ValueError):
    """A value out of range, or of the wrong shape."""


class InvalidType(NetoptError, TypeError):
    """A value of a type that cannot be used there."""


class UnsupportedModel(NetoptError):
    """A model that cannot be captured or lowered; the message names the layer, the op and the remedy."""


class FileFormatError(NetoptError):
    """A file, of a program or of weights, that is not whole and undamaged, or of a version that this netopt reads."""


def name_of_layer(name: str) -> str:
    """How a layer is called in messages and tables: the root module has the empty qualified name."""
    return f"layer '{name}'" if name else "the model itself"
