"""Which tests a source file has: its mirror, or those that TESTED_BY names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src" / "netopt"

# Files without a mirror, or patterns of them, and what tests them; all paths as in SOURCES and in TESTS. What several
# files have in common is tested once, over a table of all of them, and what is a part of others through those.
TESTED_BY: dict[str, tuple[str, ...]] = {
    "__init__.py": ("test_public.py", "test_lazy.py"),
    "*/__init__.py": ("test_public.py",),
    "__main__.py": ("test_cli.py",),
    "example.py": ("graph/test_capture.py", "program/test_program.py", "verbs/test_optimize.py"),
    "factorization/tensorly_calls.py": ("factorization/test_tucker.py", "factorization/test_cp_als.py"),
    "graph/aten/*.py": (
        "graph/test_aten.py",
        "graph/test_aten_of_whole_numbers.py",
        "graph/test_aten_of_composed_ops.py",
    ),
    "graph/check_layouts.py": ("program/test_file_of_images.py",),
    "graph/import_call.py": ("graph/test_capture.py", "graph/test_aten.py"),
    "graph/passes/__init__.py": ("graph/passes/test_passes.py",),
    "graph/passes/binary.py": ("graph/passes/test_binarize_layers.py", "graph/passes/test_find_integer_thresholds.py"),
    "graph/passes/structure.py": ("program/test_pipeline.py",),
    "graph/source.py": ("quantized/test_network.py",),
    "kernels/arg_reduce.py": ("kernels/test_whole_numbers.py",),
    "kernels/arithmetic.py": (
        "kernels/test_kernels.py",
        "kernels/test_whole_numbers.py",
        "kernels/test_arithmetic_codes.py",
    ),
    "kernels/cast.py": ("kernels/test_whole_numbers.py",),
    "kernels/compare.py": ("kernels/test_whole_numbers.py",),
    "kernels/copies.py": ("kernels/test_kernels.py", "kernels/test_images.py", "kernels/test_moves_of_codes.py"),
    "kernels/depthwise.py": ("kernels/test_conv2d.py",),
    "kernels/gather.py": ("kernels/test_whole_numbers.py",),
    "kernels/layer_norm.py": ("kernels/test_kernels.py",),
    "kernels/machine/kernel.py": ("kernels/machine/test_compile.py", "kernels/machine/test_tune.py"),
    "kernels/parts/broadcast.py": ("kernels/test_kernels.py", "kernels/test_whole_numbers.py"),
    "kernels/parts/byte_sum.py": ("kernels/parts/test_integer_product.py", "kernels/test_conv2d_codes.py"),
    "kernels/parts/code_epilogue.py": ("kernels/test_conv2d_codes.py", "kernels/test_dense_codes.py"),
    "kernels/parts/codes.py": (
        "kernels/test_convert.py",
        "kernels/test_arithmetic_codes.py",
        "kernels/test_moves_of_codes.py",
    ),
    "kernels/parts/conv2d_size.py": ("kernels/test_conv2d.py", "kernels/test_binary_conv2d.py"),
    "kernels/parts/elementwise.py": ("kernels/test_kernels.py", "kernels/test_images.py"),
    "kernels/parts/epilogue.py": ("kernels/test_dense.py", "kernels/test_conv2d.py", "kernels/test_binary_dense.py"),
    "kernels/parts/grouped_product.py": ("kernels/test_dense_grouped.py",),
    "kernels/parts/pointwise.py": ("kernels/test_kernels.py",),
    "kernels/parts/pointwise_codes.py": ("kernels/test_pointwise_codes.py",),
    "kernels/parts/rows.py": ("kernels/test_kernels.py", "kernels/test_reduce.py"),
    "kernels/parts/sign_border.py": ("kernels/test_binary_conv2d.py",),
    "kernels/parts/spatial.py": ("kernels/test_conv2d.py", "kernels/test_images.py", "kernels/test_pad.py"),
    "kernels/parts/tile.py": ("kernels/test_dense.py", "kernels/test_conv2d.py", "kernels/test_matmul.py"),
    "kernels/parts/tile_sum.py": ("kernels/test_dense.py", "kernels/test_conv2d.py", "kernels/test_winograd2d.py"),
    "kernels/parts/tiled_grouped.py": ("kernels/test_dense_grouped.py",),
    "kernels/parts/tiled*.py": ("kernels/test_dense.py", "kernels/test_conv2d.py", "kernels/test_binary_dense.py"),
    "kernels/parts/winograd_steps.py": ("kernels/test_winograd2d.py",),
    "kernels/parts/word.py": ("kernels/test_sign.py", "kernels/test_binary_conv2d.py", "kernels/test_binary_dense.py"),
    "kernels/pointwise.py": ("kernels/test_kernels.py", "kernels/test_pointwise_codes.py"),
    "kernels/pool2d.py": ("kernels/test_images.py",),
    "kernels/registry.py": ("kernels/test_kernels.py",),
    "kernels/relayout.py": ("kernels/test_images.py",),
    "kernels/softmax.py": ("kernels/test_kernels.py",),
    "kernels/torch_region.py": ("graph/test_fallback.py", "program/test_binding.py"),
    "kernels/where.py": ("kernels/test_whole_numbers.py",),
    "numerics/boolean.py": ("numerics/test_whole.py", "numerics/test_format.py"),
    "numerics/int32.py": ("numerics/test_whole.py", "numerics/test_format.py"),
    "numerics/int64.py": ("numerics/test_whole.py", "numerics/test_format.py"),
    "numerics/operations.py": ("numerics/test_bfloat16.py", "kernels/machine/test_formats.py"),
    "numerics/uint8.py": ("numerics/test_whole.py", "numerics/test_format.py"),
    "ops/*.py": ("ops/test_ops.py", "ops/test_serialize.py"),
    "quantization/fixed_point/techniques.py": ("verbs/test_quantize.py",),
    "quantized/calibrate.py": ("verbs/test_quantize.py",),
    "quantized/place.py": ("verbs/test_quantize.py", "quantized/test_typed.py"),
    "quantized/plan.py": ("verbs/test_quantize.py", "quantized/test_correct.py"),
    "training/batches.py": ("training/test_retrain.py",),
    "training/optimizer.py": ("training/test_retrain.py",),
    "training/trainer.py": ("training/test_retrain.py",),
    "verbs/options.py": ("verbs/test_optimize.py",),
    "zoo/bireal.py": ("test_binary_networks.py",),
    "zoo/vgg_small.py": ("test_binary_networks.py",),
    "zoo/*.py": ("test_zoo.py",),
}


def mirror_of(source: str) -> str:
    """The test file of the same path and name, there or not: `ops/dense.py` has `ops/test_dense.py`."""
    path = PurePosixPath(source)
    return str(path.with_name(f"test_{path.name}"))


def rows_of(source: str) -> list[str]:
    """The rows of TESTED_BY for a file: the one of its own name, or else the patterns that it fits."""
    return [source] if source in TESTED_BY else [row for row in TESTED_BY if fnmatchcase(source, row)]


def where_tested(source: str) -> list[str]:
    """The test files of a source file, both as in SOURCES and TESTS; empty where there is none."""
    if (TESTS / mirror_of(source)).exists():
        return [mirror_of(source)]
    return list(dict.fromkeys(test for row in rows_of(source) for test in TESTED_BY[row]))


def sources() -> list[str]:
    """Every Python file of netopt."""
    return sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py"))
