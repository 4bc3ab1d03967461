"""The command line: each command calls what Python code calls, and prints what it returns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import typer.core
from torch import nn

import netopt
from netopt.console import count
from netopt.errors import InvalidArgument, NetoptError
from netopt.example import Example
from netopt.given import example_of, load_model, read_tensor, write_npy
from netopt.program.file import Network, read_network
from netopt.program.options import Lowering
from netopt.program.program import Program
from netopt.quantized.network import QuantizedNetwork
from netopt.quantized.types import TypeRefused, parse_type
from netopt.quantized.variables import all_in, functions_of, variables_of
from netopt.report.inspection import inspect_network
from netopt.report.inspection_page import page_of
from netopt.report.profile import profile
from netopt.report.rows import Rows
from netopt.report.variables import VariableReport, report_variables
from netopt.settings import Settings, read_settings, settings_text, write_text
from netopt.timing import interleaved

# Rows of calibration inputs that run together.
_BATCH = 64


class _Commands(typer.core.TyperGroup):
    """The commands, whose errors are one line each."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # of any type: a factory of the user's may raise anything
            if ctx.params.get("debug") or type(error).__module__.startswith(("typer", "click")):
                raise
            typer.echo(f"netopt: {_line_of(error)}", err=True)
            raise typer.Exit(1) from None


def _line_of(error: Exception) -> str:
    """An error as one line."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, NetoptError | OSError):
        return text
    return f"{type(error).__name__}: {text or 'no message'} (netopt --debug ... shows where)"


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"netopt {netopt.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Make trained PyTorch networks smaller and faster on CPUs, in fixed point.

    template lists the types of a network's variables, convert applies them as you have edited them, and inspect shows
    what has become of it. docs/command_line.md has examples.
    """


ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="package.module:factory, which returns the model.")]
NoptFile = Annotated[Path, typer.Argument(metavar="NET.nopt", help="What convert or Program.save wrote.")]
Weights = Annotated[Path | None, typer.Option("--weights", help="The model's weights, as .safetensors.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="One input of the model: a shape as 1,3,32,32, or a .npy, .pt or .safetensors file; "
    "once for each of its arguments."),
]  # fmt: skip
Calibration = Annotated[
    list[Path] | None,
    typer.Option("--calibration", help="Inputs like those that it will see: a file of many rows; once for each "
    "argument of the model."),
]  # fmt: skip
Threads = Annotated[int, typer.Option("--threads", help="The most threads that a kernel uses.")]


@app.command(short_help="List a network's variables with their types, for editing.")
def template(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="package.module:factory, or a .nopt file.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to; else it is printed.")] = None,
    weights: Weights = None,
    input_: Inputs = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="For all that layers multiply, such as FIXED8; else FLOAT32.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """List the functions of a network, and its variables with their types, as a settings file."""
    if output is not None and output.exists() and not force:
        raise InvalidArgument(str(output), expected="no such file", found="one", fix="give another, or --force")
    if model.endswith(".nopt"):
        if type_ is not None:
            raise InvalidArgument("--type", expected="a model", found=f"{model}, whose variables have their types")
        graph = read_network(model).graph
    else:
        graph = QuantizedNetwork(load_model(model, weights), _example(input_, None)).example_graph
    variables = variables_of(graph)
    if type_ is not None:
        variables = all_in(graph, variables, parse_type(type_))
    text = settings_text(variables, functions_of(graph))
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)


@app.command(short_help="Apply the types of a settings file, and write a .nopt file.")
def convert(
    model: ModelName,
    settings: Annotated[Path, typer.Argument(metavar="SETTINGS.yaml", help="What template wrote, edited.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="NET.nopt", help="The file to write.")],
    calibration: Calibration = None,
    weights: Weights = None,
    input_: Inputs = None,
    placed: Annotated[
        Path | None, typer.Option("--placed", help="Write the settings with the positions found; may be SETTINGS.yaml.")
    ] = None,
    threads: Threads = 1,
    target: Annotated[str | None, typer.Option("--target", help="Another CPU; see netopt.lower.")] = None,
) -> None:
    """Give the variables of a network their types, find the positions left open, and write the network as .nopt."""
    wanted = read_settings(settings)
    if model.endswith(".nopt"):
        fix = "give package.module:factory"
        raise InvalidArgument("MODEL", expected="a model that is not lowered yet", found=model, fix=fix)
    network = load_model(model, weights)
    data = [read_tensor(path) for path in calibration or []]
    batches = list(_batches(data))
    example = _example(input_, data)
    graph = QuantizedNetwork(network, example).example_graph
    wanted.check(variables_of(graph), functions_of(graph))
    quantized = _quantized(network, wanted, batches, example, Lowering(threads=threads, target=target))
    report = report_variables(quantized.model, wanted.wishes, batches)
    quantized.program.save(output)
    _warn(report, wanted)
    typer.echo(str(report))
    size, arena = output.stat().st_size, quantized.program.arena_bytes
    typer.echo(f"{output}: {count(size)} bytes, arena {count(arena)} bytes")
    if placed is not None:
        write_text(placed, wanted.changed(report.placed(wanted.wishes)))


def _quantized(
    model: nn.Module, settings: Settings, batches: Sequence[Example], example: Example, options: Lowering
) -> netopt.Quantized:
    """The network in these types; what is refused is told with the line that asks for it."""
    try:
        return netopt.quantize(
            model,
            calibration=batches or None,
            example=example,
            types=settings.wishes,
            lower=True,
            threads=options.threads,
            target=options.target,
        )
    except TypeRefused as error:
        raise InvalidArgument(f"{settings.where(error.variable)}: {error}") from None


def _warn(report: VariableReport, settings: Settings) -> None:
    """Tell which positions that the user gave do not fit the data."""
    for row in report.rows:
        name = row.variable.name
        text = row.warning(settings.wishes[name]) if name in settings.wishes else None
        if text is not None:
            typer.echo(f"{settings.where(name)}: warning: '{name}': {text}", err=True)


@app.command(short_help="Show types, memory, and what rounding does.")
def inspect(
    file: NoptFile,
    calibration: Calibration = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with histograms, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """Show type, position, bytes and memory of each step, and on data what rounding does there."""
    data = [read_tensor(path) for path in calibration] if calibration else None
    inspection = inspect_network(read_network(file), data)
    if html is not None:
        write_text(html, page_of(inspection, file.name))
    typer.echo(json.dumps(inspection.to_json(), allow_nan=False, indent=1) if as_json else str(inspection))


@app.command(short_help="Run a .nopt file on inputs.")
def run(
    file: NoptFile,
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="A file of rows for each input.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.npy", help="The file to write.")],
    threads: Threads = 1,
) -> None:
    """Run a network on inputs, as many at a time as it takes, and write what it gives."""
    network = read_network(file)
    rows = Rows(network.graph, [read_tensor(path) for path in inputs])
    if rows.left:
        expected = f"a multiple of the {len(next(iter(rows))[0])} that the network takes at a time"
        raise InvalidArgument("rows of the inputs", expected=expected, found=f"{rows.left} more")
    program = Program(network, Lowering(threads=threads))
    results = [_call(program, network, tensors) for tensors in rows]
    if not isinstance(results[0], torch.Tensor):
        raise InvalidArgument(str(file), expected="a network with one output", found="one that gives more")
    write_npy(output, torch.cat(results) if results[0].dim() else torch.stack(results))


@app.command(short_help="Measure the latency of a .nopt file.")
def bench(
    file: NoptFile,
    threads: Threads = 1,
    tune: Annotated[bool, typer.Option("--tune", help="Measure schedules first; see netopt.load.")] = False,
    steps: Annotated[bool, typer.Option("--steps", help="Show the time of each step.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", help="To measure for, at most.")] = 5.0,
) -> None:
    """Measure the latency of a network on this machine."""
    network = read_network(file)
    program = Program(network, Lowering(threads=threads, tune=tune))
    generator = torch.Generator().manual_seed(0)
    types = [network.graph.types[name] for name in network.graph.inputs]
    tensors = [
        torch.zeros(type_.shape, dtype=type_.format.tensor_dtype)
        if type_.format.is_whole
        else torch.randn(type_.shape, generator=generator)
        for type_ in types
    ]
    time = interleaved({"net": lambda: _call(program, network, tensors)}, rounds=1000, seconds=seconds)["net"]
    quartiles = f"{time.lower_quartile:.4f} to {time.upper_quartile:.4f}"
    typer.echo(f"median {time.median:.4f} ms, quartiles {quartiles} ms, of {time.samples} calls")
    if steps:
        typer.echo(str(profile(program, _as_example(network, tensors))))


def _call(program: Program, network: Network, tensors: Sequence[torch.Tensor]) -> Any:
    example = _as_example(network, tensors)
    return program(example) if not isinstance(example, tuple) else program(*example)


def _as_example(network: Network, tensors: Sequence[torch.Tensor]) -> Example:
    """The example that these tensors, flat and in order, are."""
    rest = iter(tensors)
    positional: tuple[Any, ...] = network.signature.positional.unflatten(rest)
    keyword: dict[str, Any] = network.signature.keyword.unflatten(rest)
    if keyword:
        return keyword
    return positional[0] if len(positional) == 1 and isinstance(positional[0], torch.Tensor) else positional


def _example(inputs: Sequence[str] | None, data: Sequence[torch.Tensor] | None) -> Example:
    """One input: as it is given, or else the first row of the data."""
    if inputs:
        return example_of(inputs)
    if not data:
        fix = "give its shape, such as --input 1,3,32,32"
        raise InvalidArgument("--input", expected="one input of the model", found="none", fix=fix)
    rows = tuple(tensor[:1] for tensor in data)
    return rows[0] if len(rows) == 1 else rows


def _batches(data: Sequence[torch.Tensor]) -> Iterator[Example]:
    """The rows of all files, several at a time."""
    for tensor in data:
        if tensor.dim() == 0 or len(tensor) != len(data[0]):
            found = ", ".join(str(tuple(t.shape)) for t in data)
            raise InvalidArgument("--calibration", expected="files of as many rows", found=found)
    for start in range(0, len(data[0]) if data else 0, _BATCH):
        parts = tuple(tensor[start : start + _BATCH] for tensor in data)
        yield parts[0] if len(parts) == 1 else parts
