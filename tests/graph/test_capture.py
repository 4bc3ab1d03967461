"""Capture: how networks are called, where values come from, and what is refused.

One file of more than 500 lines: each part is short, and all compare a module made of one function with its graph.
"""

from __future__ import annotations

import copy
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from netopt.errors import InvalidArgument, InvalidType, UnsupportedModel
from netopt.example import split_example
from netopt.graph import Graph, Nesting, interpret
from netopt.graph.capture import capture
from netopt.numerics import FLOAT32
from netopt.ops import Dense, TensorType

TENSOR = Nesting("tensor")


class Model(nn.Module):
    """A function of the module and its inputs as a module; tensors and modules given by name are its state."""

    def __init__(self, function: Callable[..., Any], **state: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in state.items():
            setattr(self, name, value)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.function(self, *inputs, **named)


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _assert_captured(model: nn.Module, example: Any, *, ulps: float = 0.0) -> Graph:
    """Capture, and compare with the model in eval mode on other inputs than the example.

    `ulps` are units of 2^-23 of the largest result; 0 where the same PyTorch functions give both.
    """
    graph, signature = capture(model, example)
    args, kwargs = split_example(example)
    flat = [*signature.positional.flatten(args, "input"), *signature.keyword.flatten(kwargs, "input")]
    fresh = [_normal(*tensor.shape, seed=100 + i) for i, tensor in enumerate(flat)]
    rest = iter(fresh)
    args, kwargs = signature.positional.unflatten(rest), signature.keyword.unflatten(rest)  # type: ignore[assignment]
    with torch.no_grad():
        right = copy.deepcopy(model).eval()(*args, **kwargs)
    expected = signature.output.flatten(right, "output of the model")
    results = interpret(graph, fresh)
    assert len(results) == len(expected)
    for result, value in zip(results, expected, strict=True):
        size = max(1.0, value.abs().max().item())
        torch.testing.assert_close(result, value, rtol=0.0, atol=ulps * 2.0**-23 * size)
    return graph


# --- how networks are called


@pytest.mark.parametrize(
    ("example", "args", "kwargs"),
    [((1, 2), (1, 2), {}), ({"a": 1}, (), {"a": 1}), ((), (), {}), (OrderedDict(b=1, a=2), (), {"b": 1, "a": 2})],
)
def test_split_example(example: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert split_example(example) == (args, kwargs)


def test_a_tensor_is_the_only_argument() -> None:
    x = torch.ones(2)
    args, kwargs = split_example(x)
    assert args[0] is x
    assert len(args) == 1
    assert kwargs == {}


@pytest.mark.parametrize("example", [[torch.ones(2)], 3, None, "x", {torch.ones(2)}], ids=lambda e: type(e).__name__)
def test_no_example_of_another_type(example: Any) -> None:
    message = rf"^example: expected a tensor, a tuple .* or a dict .*, found {type(example).__name__}$"
    with pytest.raises(InvalidType, match=message):
        capture(nn.ReLU(), example)


@pytest.mark.parametrize(
    ("example", "positional", "keyword"),
    [
        (_normal(2), Nesting("tuple", (), (TENSOR,)), Nesting("dict")),
        ((_normal(2), _normal(2)), Nesting("tuple", (), (TENSOR, TENSOR)), Nesting("dict")),
        ({"b": _normal(2), "a": _normal(2)}, Nesting("tuple"), Nesting("dict", ("b", "a"), (TENSOR, TENSOR))),
    ],
    ids=["tensor", "tuple", "dict"],
)
def test_signature(example: Any, positional: Nesting, keyword: Nesting) -> None:
    def forward(self: nn.Module, a: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        return a.relu() if b is None else a - 2 * b

    _, signature = capture(Model(forward), example)
    assert signature.positional == positional
    assert signature.keyword == keyword
    assert signature.output == TENSOR
    _assert_captured(Model(forward), example)


@pytest.mark.parametrize("names", [("left", "right"), ("right", "left")])
def test_keyword_arguments_in_any_order(names: tuple[str, ...]) -> None:
    def forward(self: nn.Module, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left - right

    _assert_captured(Model(forward), {name: _normal(2, 3, seed=i) for i, name in enumerate(names)})


def test_nested_inputs_in_any_order() -> None:
    def forward(self: nn.Module, batch: dict[str, Any], scale: list[torch.Tensor]) -> torch.Tensor:
        first, (second, third) = batch["a"], batch["b"]
        return (first - second) * scale[0] - third * scale[1]

    batch = {"b": (_normal(2, 3), [_normal(2, 3)][0]), "a": _normal(2, 3)}
    graph = _assert_captured(Model(forward), (batch, [_normal(3), _normal(2, 1)]))
    assert len(graph.inputs) == 5


def test_one_tensor_given_twice_is_two_inputs() -> None:
    """An example says shapes only; the caller may give two different tensors later."""
    x = _normal(2, 3)
    _assert_captured(Model(lambda self, a, b: a - 2 * b), (x, x))


def test_a_tensor_of_the_model_as_example_is_not_that_tensor() -> None:
    layer = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        # Sums of 4 products of sizes up to 3 in another order.
        _assert_captured(layer, layer.weight, ulps=12)


def test_an_input_that_is_not_read_stays_an_input() -> None:
    graph = _assert_captured(Model(lambda self, a, b: b.relu()), (_normal(2), _normal(3)))
    assert [graph.types[name].shape for name in graph.inputs] == [(2,), (3,)]


def test_a_model_without_inputs() -> None:
    graph = _assert_captured(Model(lambda self: self.weight + 1, weight=nn.Parameter(_normal(3))), ())
    assert graph.inputs == ()


@pytest.mark.parametrize(
    ("forward", "structure"),
    [
        (lambda self, x: x.relu(), TENSOR),
        (lambda self, x: (x.relu(),), Nesting("tuple", (), (TENSOR,))),
        (lambda self, x: [x.relu(), x.tanh()], Nesting("list", (), (TENSOR, TENSOR))),
        (lambda self, x: {"z": x.relu(), "a": x.tanh()}, Nesting("dict", ("z", "a"), (TENSOR, TENSOR))),
        (
            lambda self, x: ({"z": [x.relu()]}, x.tanh()),
            Nesting("tuple", (), (Nesting("dict", ("z",), (Nesting("list", (), (TENSOR,)),)), TENSOR)),
        ),
        (lambda self, x: OrderedDict(z=x.relu(), a=x.tanh()), Nesting("dict", ("z", "a"), (TENSOR, TENSOR))),
    ],
    ids=["tensor", "tuple", "list", "dict", "nested", "ordered dict"],
)
def test_outputs(forward: Callable[..., Any], structure: Nesting) -> None:
    _, signature = capture(Model(forward), _normal(2, 3))
    assert signature.output == structure
    _assert_captured(Model(forward), _normal(2, 3))


def test_the_input_returned_as_it_is() -> None:
    graph = _assert_captured(Model(lambda self, x: (x, x + 1, x)), _normal(2, 3))
    assert graph.outputs[0] == graph.outputs[2] == graph.inputs[0]


def test_one_value_returned_twice() -> None:
    def forward(self: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        y = x.relu()
        return [y, y]

    graph = _assert_captured(Model(forward), _normal(2, 3))
    assert len(graph.nodes) == 1
    assert graph.outputs[0] == graph.outputs[1]


def test_a_constant_returned() -> None:
    graph = _assert_captured(Model(lambda self, x: (self.w, x + 1), w=nn.Parameter(_normal(3))), _normal(2))
    assert graph.outputs[0] in graph.constants


# --- where values come from


@pytest.mark.parametrize(
    "state",
    [nn.Parameter(_normal(3)), nn.Buffer(_normal(3)), nn.Buffer(_normal(3), persistent=False), _normal(3)],
    ids=["parameter", "buffer", "buffer that is not saved", "attribute"],
)
def test_state_becomes_constants(state: torch.Tensor) -> None:
    graph = _assert_captured(Model(lambda self, x: x * self.state, state=state), _normal(2, 3))
    assert list(graph.constants) == ["state"]
    assert torch.equal(graph.constants["state"], state.detach())


def test_a_tensor_written_into_the_code_becomes_a_constant() -> None:
    _assert_captured(Model(lambda self, x: x * torch.tensor([1.0, 2.0, 3.0])), _normal(2, 3))


def test_a_layer_used_twice_is_one_constant() -> None:
    layer = nn.Linear(3, 3)
    # Twice a sum of 4 terms in another order than PyTorch's.
    graph = _assert_captured(Model(lambda self, x: self.fc(self.fc(x).relu()), fc=layer), _normal(2, 3), ulps=8)
    assert list(graph.constants) == ["fc.weight", "fc.bias"]
    assert [node.layer for node in graph.nodes] == ["fc", "", "fc"]


def test_tied_weights_are_one_constant() -> None:
    encoder, decoder = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    decoder.weight = encoder.weight
    graph = _assert_captured(nn.Sequential(encoder, nn.Tanh(), decoder), _normal(2, 3), ulps=8)
    assert len(graph.constants) == 1


def test_equal_but_separate_weights_are_two_constants() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.load_state_dict(first.state_dict())
    graph = _assert_captured(nn.Sequential(first, second), _normal(2, 3), ulps=8)
    assert list(graph.constants) == ["0.weight", "1.weight"]


def test_all_values_are_float32_of_static_shape() -> None:
    graph = _assert_captured(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)), _normal(2, 3), ulps=16)
    assert {type_.format for type_ in graph.types.values()} == {FLOAT32}
    assert graph.types[graph.inputs[0]] == TensorType((2, 3))
    assert graph.types[graph.outputs[0]] == TensorType((2, 5))


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 3)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(shape: tuple[int, ...], affine: bool) -> None:
    layer = nn.BatchNorm1d(4, affine=affine)
    layer.running_mean, layer.running_var = _normal(4, seed=1), _normal(4, seed=2).exp()
    # x * scale + shift, where scale and shift are rounded at each step by PyTorch: 4 roundings, of terms below 10.
    _assert_captured(layer, _normal(*shape), ulps=16)


def test_dropout_is_gone() -> None:
    graph = _assert_captured(nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.2)), _normal(2, 3))
    assert len(graph.nodes) == 1


def test_numbers_do_not_depend_on_the_default_type() -> None:
    before = torch.get_default_dtype()
    model = nn.Sequential(nn.LayerNorm(3, elementwise_affine=False), Model(lambda self, x: 1 + 0.1 * x))
    x = _normal(2, 3)
    try:
        torch.set_default_dtype(torch.float64)
        graph, _ = capture(model, x)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(interpret(graph, [x])[0], model(x))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_may_be_on_or_off(context: Callable[[], Any]) -> None:
    with context():
        graph, _ = capture(nn.Linear(3, 2), _normal(2, 3))
    assert [type(node.op) for node in graph.nodes] == [Dense]


def test_the_layer_of_a_node_is_the_innermost_one() -> None:
    block = nn.Sequential(OrderedDict(fc=nn.Linear(3, 3), act=nn.ReLU()))
    model = Model(lambda self, x: self.features(x) + 1, features=nn.Sequential(block, nn.Tanh()))
    graph, _ = capture(model, _normal(2, 3))
    assert [node.layer for node in graph.nodes] == ["features.0.fc", "features.0.act", "features.1", ""]


# --- in place


def test_in_place_activations() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 3), nn.ELU(inplace=True))
    # Twice a sum of 4 terms, and expm1 against PyTorch's polynomial.
    _assert_captured(model, _normal(2, 3), ulps=12)


def test_in_place_arithmetic() -> None:
    def forward(self: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = 2 * x
        alias, rows = y, y.reshape(3, 2)
        y += 1
        y *= x
        y.sub_(0.5).div_(3)
        return alias, rows

    _assert_captured(Model(forward), _normal(2, 3))


@pytest.mark.parametrize("model", [nn.ReLU(inplace=True), Model(lambda self, x: x.add_(1))], ids=["relu", "add_"])
def test_what_is_written_to_the_input_is_seen_by_nobody_else(model: nn.Module) -> None:
    x = _normal(2, 3)
    before = x.clone()
    graph, _ = capture(model, x)
    assert torch.equal(x, before)
    assert len(graph.outputs) == 1
    assert torch.equal(interpret(graph, [x])[0], model(before.clone()))


@pytest.mark.parametrize("in_place", [True, False])
def test_writing_to_a_buffer_is_refused(in_place: bool) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if in_place:
            self.calls.add_(1)
        else:
            self.calls = self.calls + 1
        return x * self.calls

    model = Model(forward, calls=nn.Buffer(torch.zeros(1)))
    with pytest.raises(
        UnsupportedModel, match="the model writes to 'calls' in forward; return it as an output instead"
    ):
        capture(model, _normal(2, 3))
    assert torch.equal(model.calls, torch.zeros(1))


# --- the caller's model


class Trained(nn.Module):
    """In training mode, with gradients, statistics and a part that is frozen in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(6)
        with torch.no_grad():
            for norm in (self.norm, self.frozen):
                norm.running_mean.copy_(_normal(6, seed=7))  # type: ignore[union-attr]
        self.train()
        self.frozen.eval()
        self(_normal(5, 4, seed=8)).sum().backward()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(self.drop(self.norm(self.fc(x))))  # type: ignore[no-any-return]


def _state(model: nn.Module) -> dict[str, tuple[int, int, torch.Tensor, torch.Tensor | None, bool]]:
    """Identity, place, value, gradient and kind of each tensor."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        name: (id(t), t.data_ptr(), t.detach().clone(), None if t.grad is None else t.grad.clone(), t.requires_grad)
        for name, t in tensors
    }


def test_a_model_in_training_mode_is_captured_in_eval_mode_and_left_as_it_is() -> None:
    torch.manual_seed(0)
    model = Trained()
    modes = [module.training for module in model.modules()]
    assert modes == [True, True, True, True, False]
    before = _state(model)
    example = _normal(3, 4)
    # A sum of 5 terms, then twice the batch norm's 4 roundings, of terms below 4.
    graph = _assert_captured(model, example, ulps=64)
    assert [module.training for module in model.modules()] == modes
    after = _state(model)
    for name, (identity, place, value, gradient, needed) in before.items():
        assert after[name][:2] == (identity, place)
        assert torch.equal(after[name][2], value)
        assert (gradient is None) == (after[name][3] is None)
        assert gradient is None or torch.equal(after[name][3], gradient)
        assert after[name][4] == needed
    assert len(graph.nodes) == 3
    assert torch.equal(example, _normal(3, 4))


def test_the_copy_in_eval_mode_shares_the_weights() -> None:
    """A second set of weights could be more than the machine has."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()
    graph, _ = capture(model, _normal(2, 3))
    assert graph.constants["0.weight"].data_ptr() == model[0].weight.data_ptr()


def test_a_model_that_cannot_be_copied_in_training_mode_is_told_to_leave_it() -> None:
    model = Model(lambda self, x: x + 1, lock=threading.Lock())
    capture(model.eval(), _normal(2))
    with pytest.raises(UnsupportedModel, match=r"eval\(\)"):
        capture(model.train(), _normal(2))


# --- what cannot be captured


@pytest.mark.parametrize("model", [lambda x: x, nn.ReLU, None], ids=["function", "class", "none"])
def test_a_model_is_a_module(model: Any) -> None:
    with pytest.raises(InvalidType, match=r"model: expected a torch\.nn\.Module, found"):
        capture(model, _normal(2))


@pytest.mark.parametrize(
    ("example", "error", "message"),
    [
        (_normal(2, 3).double(), InvalidType, r"example 0: expected float32, found torch.float64; .* with .float\(\)"),
        ((_normal(3), _normal(3).half()), InvalidType, "example 1: expected float32, found torch.float16"),
        (torch.ones(2, 3).bfloat16(), InvalidType, "example 0: expected float32, found torch.bfloat16"),
        (
            torch.ones(2, 3).short(),
            InvalidArgument,
            r"example 0: expected .* found torch.int16 \(2, 3\)",
        ),
        (
            torch.ones(3, dtype=torch.complex64),
            InvalidArgument,
            "example 0: expected .* of float32, .*complex64",
        ),
        (torch.ones(0, 3), InvalidArgument, r"example 0: expected .* not empty, found torch.float32 \(0, 3\)"),
        (
            torch.ones(2, 3, device="meta"),
            InvalidArgument,
            r"example 0: expected .* on the CPU, found meta; .*\.cpu\(\)",
        ),
        ((_normal(3), 2.0j), InvalidType, r"example\[1\]: expected a tensor, None, .*, found complex"),
        ({"x": [_normal(3), b"x"]}, InvalidType, r"example\['x'\]\[1\]: expected a tensor, None, .*, found bytes"),
    ],
    ids=lambda value: None if isinstance(value, str | type) else "",
)
def test_examples_that_cannot_be_used(example: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        capture(nn.ReLU(), example)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            nn.Linear(3, 3).double(),
            InvalidType,
            r"weight: expected float32, found torch.float64; convert .*\.float\(\)",
        ),
        (nn.Linear(3, 3).half(), InvalidType, "weight: expected float32, found torch.float16"),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3).double()), InvalidType, "1.weight: expected float32, found"),
        (nn.Linear(3, 3, device="meta"), InvalidArgument, "weight: expected a tensor on the CPU, found meta; move it"),
    ],
    ids=["float64", "float16", "a layer of float64", "meta"],
)
def test_weights_that_cannot_be_used(model: nn.Module, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        capture(model, _normal(2, 3))


def test_a_counter_of_integers_may_be_there_while_nothing_reads_it() -> None:
    graph = _assert_captured(Model(lambda self, x: x + 1, steps=nn.Buffer(torch.tensor(3))), _normal(2))
    assert "steps" not in graph.types


@pytest.mark.parametrize("as_buffer", [False, True])
def test_a_tensor_of_another_type_in_the_sum_is_refused_by_name(as_buffer: bool) -> None:
    offsets = torch.ones(3, dtype=torch.float64)
    model = nn.Sequential(nn.ReLU(), Model(lambda self, x: x + self.offsets))
    model[1].offsets = nn.Buffer(offsets) if as_buffer else offsets
    with pytest.raises(UnsupportedModel, match=r"1\.offsets.*: expected .*float32.*, found torch.float64 \(3,\)"):
        capture(model, _normal(2, 3))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.int16, torch.float64])
def test_what_is_computed_of_other_types_when_lowering_may_be_anything(dtype: torch.dtype) -> None:
    offsets = nn.Buffer(torch.tensor([2, 0, 1]).to(dtype))
    _assert_captured(Model(lambda self, x: x + (self.offsets * 2).float(), offsets=offsets), _normal(2, 3))


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (
            nn.Sequential(OrderedDict(features=nn.Sequential(nn.FractionalMaxPool2d(2, 2)))),
            _normal(1, 1, 5, 4),
            r"layer 'features.0': op 'aten.rand.default' is not lowered; write the layer with the ops that",
        ),
        (
            nn.Sequential(nn.ReLU(), Model(lambda self, x: torch.special.i0(x))),
            _normal(2, 3),
            r"layer '1': test_capture\.py:\d+ `[^`]*`: op 'aten.special_i0.default' is not lowered",
        ),
        (
            Model(lambda self, x: x.kthvalue(2).values),
            _normal(3),
            r"the model itself: test_capture\.py:\d+ `[^`]*`: op 'aten.kthvalue.default' is not lowered; .* fallback",
        ),
        (
            nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)),
            _normal(2, 3),
            r"layer '0': batch normalization with the statistics of the batch; build the layer with track",
        ),
        (
            nn.Sequential(Model(lambda self, x: F.dropout(x, 0.5, training=True))),
            _normal(2, 3),
            r"layer '0': dropout that is active in eval mode; use torch.nn.Dropout, or .*, or lower with fallback",
        ),
        (
            nn.Sequential(Model(lambda self, x: x.to(torch.float64))),
            _normal(2, 3),
            r"layer '0': result: expected float32, .*, found torch.float64; .*, or lower with fallback=True",
        ),
        (
            nn.Sequential(Model(lambda self, x: F.softmax(x, 1, dtype=torch.float64))),
            _normal(2, 3),
            r"layer '0': softmax: expected dtype float32, found torch.float64",
        ),
        (
            nn.Sequential(Model(lambda self, x: x[2:2])),
            _normal(3),
            r"layer '0': op 'aten.slice.Tensor': slice: expected 0 <= start < stop <= 3 and step >= 1, found 2:2:1",
        ),
    ],
    ids=[
        "random windows",
        "special function",
        "k-th value",
        "batch statistics",
        "dropout",
        "float64",
        "softmax in float64",
        "empty slice",
    ],
)
def test_an_op_without_importer_names_itself_and_its_layer(
    model: nn.Module, example: torch.Tensor, message: str
) -> None:
    with pytest.raises(UnsupportedModel, match=f"^{message}"):
        capture(model, example)


def _returning(value: Any) -> nn.Module:
    return Model(lambda self, x: value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_returning("text"), "output of the model: expected at least one tensor, found none"),
        (_returning(None), "output of the model: expected at least one tensor, found none"),
        (_returning(()), "output of the model: expected at least one tensor, found none"),
        (_returning({"a": []}), "output of the model: expected at least one tensor, found none"),
    ],
    ids=["text", "none", "nothing", "nested nothing"],
)
def test_outputs_without_tensors_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"^{message}$"):
        capture(model, _normal(2))


def test_named_tuples_are_tuples() -> None:
    _, signature = capture(Model(lambda self, x: Pair(x, x + 1)), _normal(2))
    assert signature.output == Nesting("tuple", (), (Nesting("tensor"), Nesting("tensor")))


@pytest.mark.parametrize("value", [None, 3, 2.5, True, "text"], ids=str)
def test_what_is_no_tensor_comes_back_as_it_was(value: object) -> None:
    graph, signature = capture(Model(lambda self, x, y: {"a": x + 1, "b": [y]}), (_normal(2), value))
    assert len(graph.inputs) == len(graph.outputs) == 1
    x = _normal(2, seed=1)
    assert signature.positional.flatten((x, value), "input") == [x]
    with pytest.raises(InvalidArgument, match=rf"^input\[1\]: expected {re.escape(repr(value))}, found bytes"):
        signature.positional.flatten((x, b""), "input")
    assert signature.output.unflatten(iter([x])) == {"a": x, "b": [value]}


def test_no_random_numbers_are_drawn() -> None:
    before = torch.random.get_rng_state()
    capture(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval(), _normal(2, 3))
    drawn = torch.random.get_rng_state()
    torch.random.set_rng_state(before)
    nn.Linear(3, 3)  # what the line above drew by itself
    assert torch.equal(drawn, torch.random.get_rng_state())
