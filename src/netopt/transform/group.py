"""The unit of a technique: layers that are replaced together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netopt.errors import InvalidArgument, InvalidType, name_of_layer
from netopt.transform.select import Layer


@dataclass(frozen=True)
class Group:
    """Layers that are replaced together: all of them or none. A layer on its own is a group of one.

    Attributes:
        layers: at least one.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple) or not all(isinstance(layer, Layer) for layer in self.layers):
            raise InvalidType("Group", expected="a tuple of layers", found=repr(self.layers))
        if not self.layers:
            raise InvalidArgument("Group", expected="at least one layer", found="none")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the layers."""
        return tuple(layer.name for layer in self.layers)

    @property
    def layer(self) -> Layer:
        """The layer of a group of one.

        Raises:
            InvalidArgument: there are several.
        """
        if len(self.layers) > 1:
            found = ", ".join(map(repr, self.names))
            raise InvalidArgument("Group", expected="a layer on its own", found=f"several: {found}")
        return self.layers[0]


def check_groups(groups: object, layers: Sequence[Layer], technique: str) -> tuple[Group, ...]:
    """The groups, if they hold each layer at most once, and none but these.

    Raises:
        InvalidType: they are no groups.
        InvalidArgument: a layer stands in two groups or was not given, or one of a group is part of another.
    """
    what = f"{technique}.groups"
    if not isinstance(groups, Sequence) or not all(isinstance(group, Group) for group in groups):
        raise InvalidType(what, expected="a sequence of netopt.Group", found=repr(groups))
    left = {layer.name for layer in layers}
    for group in groups:
        for name in group.names:
            if name not in left:
                raise InvalidArgument(
                    what, expected="each of the layers given, once", found="another, or one again", layer=name
                )
            left.remove(name)
            outer = next((other for other in group.names if is_within(name, other)), None)
            if outer is not None:
                found = f"a part of {name_of_layer(outer)}"
                raise InvalidArgument(what, expected="layers side by side in a group", found=found, layer=name)
    return tuple(groups)


def is_within(name: str, outer: str) -> bool:
    """Whether the module of a name is part of another one."""
    return name != outer and (outer == "" or name.startswith(f"{outer}."))
