"""What changes nothing in eval mode."""

from __future__ import annotations

from typing import Any

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer


def same(context: Context, args: dict[str, Any]) -> str:
    value: str = args["self"] if "self" in args else args["input"]
    return value


def _dropout(context: Context, args: dict[str, Any]) -> str:
    if args["train"] and args["p"] > 0:
        raise UnsupportedModel(
            "dropout that is active in eval mode",
            layer=context.layer,
            fix="use torch.nn.Dropout, or F.dropout with training=self.training",
        )
    return same(context, args)


def _native_dropout(context: Context, args: dict[str, Any]) -> Imported:
    return (_dropout(context, args), "")


def _convert(context: Context, args: dict[str, Any]) -> Imported:
    """The same in another number format; a device or a memory format changes nothing."""
    return context.cast(same(context, args), context.result_format(args.get("dtype")))


IMPORTERS: dict[str, Importer] = {
    "dropout.default": _dropout,
    "native_dropout.default": _native_dropout,
    "clone.default": same,
    "contiguous.default": same,
    "detach.default": same,
    "detach_.default": same,
    "alias.default": same,
    "lift_fresh_copy.default": same,
    "_to_copy.default": _convert,
    "to.dtype": _convert,
    "type_as.default": _convert,
}
