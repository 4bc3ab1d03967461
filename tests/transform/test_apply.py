"""Techniques applied to models: what the framework gives to every one of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from netopt import Cost, InvalidArgument, InvalidType, Keep, Layer, Proposal, Technique
from netopt.transform.apply import transform
from netopt.transform.candidate import Replacement
from netopt.transform.layer_report import LayerReport
from netopt.transform.policy import Judge, Verdict
from netopt.transform.technique import inherit


@dataclass(frozen=True, kw_only=True)
class Halve(Technique):
    """Put two thin layers in place of one, if it has more than two outputs."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def replace(self, layer: Layer) -> nn.Module | Keep:
        if layer.out_features <= 2:
            return Keep("too small")
        return inherit(nn.Sequential(nn.Linear(layer.in_features, 1), nn.Linear(1, layer.out_features)), layer.module)


@dataclass(frozen=True, kw_only=True)
class Wrap(Technique):
    """Keep the layer inside its replacement."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def replace(self, layer: Layer) -> nn.Module | Keep:
        return nn.Sequential(layer.module, nn.Identity())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head, self.free = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False), nn.Linear(4, 9)
        self.head.weight = self.embed.weight


def alone(judge: Callable[[Layer, nn.Module], Verdict]) -> Judge:
    """A judge of groups of one."""

    def of_parts(parts: Sequence[Replacement]) -> Verdict:
        (part,) = parts
        return judge(part.layer, part.module)

    return of_parts


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 4), nn.Conv1d(4, 4, 1)), nn.Linear(4, 2)
    )


def test_rows_for_all_candidates_and_nothing_else() -> None:
    _, report = transform(network(), Halve(select=lambda layer: not layer.is_first))
    rows = [(row.layer, row.kind, row.technique, row.replaced, row.reason) for row in report.rows]
    assert rows[0] == ("0", "Linear", "Halve", False, "filtered out")
    assert rows[1][:4] == ("2.0", "Linear", "Halve", True)
    assert rows[2] == ("3", "Linear", "Halve", False, "too small")
    assert [(row.before, row.after) for row in report.rows] == [
        (Cost(35, 30), Cost(35, 30)),
        (Cost(24, 20), Cost(6 + 8, 5 + 4)),
        (Cost(10, 8), Cost(10, 8)),
    ]


def test_report_prints_as_a_table() -> None:
    lines = str(transform(network(), Halve())[1]).splitlines()
    assert lines[0].split() == [
        "layer",
        "type",
        "technique",
        "replaced",
        "note",
        "parameters",
        "->",
        "multiply-adds",
        "->",
    ]
    assert [line.split()[:4] for line in lines[2:5]] == [
        ["0", "Linear", "Halve", "yes"],
        ["2.0", "Linear", "Halve", "yes"],
        ["3", "Linear", "Halve", "no"],
    ]
    assert lines[-1] == "2 of 3 candidate layers replaced"


def test_filters_are_asked_for_each_candidate_once_and_for_nothing_else() -> None:
    asked: list[str] = []

    def note(layer: Layer) -> bool:
        asked.append(layer.name)
        return True

    transform(network(), Halve(select=note))
    assert asked == ["0", "2.0", "3"]


def test_the_callers_model_is_neither_changed_nor_shared() -> None:
    model = network()
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    new, _ = transform(model, Halve())
    assert list(model.modules()) == modules
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    pointers = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert pointers.isdisjoint(tensor.data_ptr() for tensor in new.state_dict().values())


def test_untouched_layers_keep_everything() -> None:
    model = network()
    conv, shared = model[2][1], nn.Parameter(torch.ones(4))
    model.register_buffer("count", torch.tensor(3))
    model.first, model.second = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    model.first.weight = model.second.weight = shared
    conv.bias.requires_grad_(False)
    model[2].eval()
    new, _ = transform(model, Halve())
    assert new[2][1].bias.requires_grad is False
    assert (new.training, new[2].training, new[2][1].training) == (True, False, False)
    assert (new[0].training, new[2][0].training) == (True, False)
    assert new.first.weight is new.second.weight
    assert new.count == 3
    kept = [key for key in model.state_dict() if not key.startswith(("0.", "2.0."))]
    assert all(torch.equal(new.state_dict()[key], model.state_dict()[key]) for key in kept)


def test_a_module_used_twice_is_replaced_by_one() -> None:
    shared = nn.Linear(4, 4)
    new, report = transform(nn.Sequential(shared, nn.ReLU(), shared), Halve())
    assert new[0] is new[2]
    assert isinstance(new[0], nn.Sequential)
    assert len(report.rows) == 1


def test_a_model_that_is_itself_a_candidate() -> None:
    new, report = transform(nn.Linear(6, 5), Halve())
    assert isinstance(new, nn.Sequential)
    assert report.rows[0].layer == ""
    assert "(the model)" in str(report)


def test_a_replacement_may_hold_the_layer() -> None:
    model, x = network()[:2], torch.randn(3, 6)
    new, _ = transform(model, Wrap(), keep_if="always")
    assert isinstance(new[0], nn.Sequential)
    assert torch.equal(new(x), model(x))


def test_shared_weights_are_left_alone() -> None:
    new, report = transform(Tied(), Halve())
    assert new.head.weight is new.embed.weight
    assert [(row.layer, row.replaced) for row in report.rows] == [("head", False), ("free", True)]
    assert report.rows[0].reason == "its weight is shared: embed.weight, head.weight"


@pytest.mark.parametrize(
    "register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_layers_with_hooks_are_left_alone(register: str) -> None:
    model = network()
    getattr(model[0], register)(lambda *arguments: None)
    _, report = transform(model, Halve())
    assert [row.replaced for row in report.rows] == [False, True, False]
    assert "hooks" in report.rows[0].reason


def test_subclasses_are_no_candidates() -> None:
    """They may do more than the layer does: attention's output projection is read, not called."""
    _, report = transform(nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8)), Halve())
    assert [row.layer for row in report.rows] == ["1"]


def test_techniques_follow_one_another() -> None:
    model, report = transform(network()[:1], [Halve(), Wrap(select="0.1")], keep_if="always")
    assert [(row.technique, row.layer, row.replaced) for row in report.rows] == [
        ("Halve", "0", True),
        ("Wrap", "0.0", False),
        ("Wrap", "0.1", True),
    ]
    assert isinstance(model[0][1], nn.Sequential)


@dataclass(frozen=True, kw_only=True)
class Broken(Halve):
    def replace(self, layer: Layer) -> nn.Module | Keep:
        return "nothing"  # type: ignore[return-value]


def test_wrong_arguments() -> None:
    with pytest.raises(InvalidType, match="model: expected a torch.nn.Module, found list"):
        transform([], Halve())  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="techniques"):
        transform(network(), [Halve])  # type: ignore[list-item]
    with pytest.raises(InvalidType, match="layer '0': Broken.replace: expected a module, a Proposal or Keep"):
        transform(network(), Broken())
    with pytest.raises(InvalidArgument, match='keep_if: expected "faster", "smaller" or "always", found \'quicker\''):
        transform(network(), Halve(), keep_if="quicker")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match='judge: expected one for keep_if="faster", found none'):
        transform(network(), Halve(), keep_if="faster")
    with pytest.raises(InvalidArgument, match="example: expected an input that the model takes, found RuntimeError"):
        transform(network(), Halve(), example=torch.zeros(1, 7))


class Uncopyable(nn.Module):
    def __deepcopy__(self, memo: dict[int, object]) -> nn.Module:
        raise RuntimeError("no copies")


def test_a_model_that_cannot_be_copied() -> None:
    with pytest.raises(InvalidType, match=r"one that copy.deepcopy can copy, found RuntimeError\('no copies'\)"):
        transform(Uncopyable(), Halve())


@dataclass(frozen=True, kw_only=True)
class Offer(Technique):
    """Propose a replacement with one inner feature, and note when it is built."""

    built: list[str]
    parameters: int = 1
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def replace(self, layer: Layer) -> Proposal:
        def build() -> nn.Module:
            self.built.append(layer.name)
            return nn.Sequential(nn.Linear(layer.in_features, 1), nn.Linear(1, layer.out_features))

        return Proposal(self.parameters, build, "one feature", lambda module: 0.25)


def test_a_proposal_is_built_if_it_is_wanted() -> None:
    technique = Offer(built=[], select=["0", "3"])
    new, report = transform(network(), technique)
    assert technique.built == ["0", "3"]
    assert isinstance(new[3], nn.Sequential)
    assert [(row.replaced, row.reason, row.error) for row in report.rows] == [
        (True, "Sequential; one feature", 0.25),
        (False, "filtered out", None),
        (True, "Sequential; one feature", 0.25),
    ]


def test_a_proposal_that_saves_nothing_is_not_built() -> None:
    technique = Offer(built=[], parameters=24)
    new, report = transform(network(), technique)
    assert technique.built == ["0"]
    assert isinstance(new[3], nn.Linear)
    reasons = [row.reason for row in report.rows[1:]]
    assert reasons == [
        "one feature saves nothing: 24 parameters, not fewer than 24",
        "one feature saves nothing: 24 parameters, not fewer than 10",
    ]


def test_a_proposal_that_is_much_larger_is_not_built_to_be_timed() -> None:
    technique = Offer(built=[], parameters=36)
    judge = alone(lambda layer, new: Verdict(layer.name == "0", "not faster by 5%"))
    new, report = transform(network(), technique, keep_if="faster", judge=judge)
    assert technique.built == ["0"]  # 36 are less than 1.5 times 35, but 1.5 times 24
    assert isinstance(new[0], nn.Sequential)
    reasons = [row.reason for row in report.rows[1:]]
    assert reasons == ["one feature would have 36 parameters, over 1.5 times those of the layer: not tried"] * 2


def test_always_keeps_what_is_larger_too() -> None:
    technique = Offer(built=[], parameters=1000)
    _, report = transform(network(), technique, keep_if="always")
    assert technique.built == ["0", "2.0", "3"]
    assert all(row.replaced and row.before_ms is None and row.after_ms is None for row in report.rows)


def test_a_module_that_saves_nothing() -> None:
    new, report = transform(network()[:1], Wrap())
    assert isinstance(new[0], nn.Linear)
    assert report.rows[0].reason == "saves nothing: 35 parameters, not fewer than 35"


def test_build_must_make_a_module() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Empty(Halve):
        def replace(self, layer: Layer) -> Proposal:  # type: ignore[override]
            return Proposal(1, lambda: None)  # type: ignore[arg-type, return-value]

    with pytest.raises(InvalidType, match="layer '0': Proposal.build of Empty: expected a module, found NoneType"):
        transform(network(), Empty())


def test_the_judge_decides_and_its_times_are_reported() -> None:
    asked: list[tuple[str, tuple[torch.Size, ...], nn.Module]] = []

    def judge(layer: Layer, replacement: nn.Module) -> Verdict:
        asked.append((layer.name, layer.input_shapes, replacement))
        keeps = layer.name == "2.0"
        return Verdict(keeps, "" if keeps else "not faster by 5%", 2.0, 1.0 if keeps else 3.0)

    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 4)), nn.Linear(4, 2))
    new, report = transform(model, Halve(), example=torch.zeros(7, 6), keep_if="faster", judge=alone(judge))
    assert [(name, shapes) for name, shapes, _ in asked] == [
        ("0", (torch.Size((7, 6)),)),
        ("2.0", (torch.Size((7, 5)),)),
    ]
    assert new[2][0] is asked[1][2]
    assert [(row.replaced, row.reason, row.before_ms, row.after_ms) for row in report.rows] == [
        (False, "Sequential: not faster by 5%", 2.0, 3.0),
        (True, "Sequential", 2.0, 1.0),
        (False, "too small", None, None),
    ]
    assert report.rows[0].after == report.rows[0].before == Cost(35, 7 * 30)
    assert report.rows[1].after == Cost(14, 7 * 9)


def test_techniques_see_the_network_that_the_one_before_left() -> None:
    model = nn.Sequential(nn.Linear(6, 5))
    _, report = transform(
        model, [Halve(), Wrap()], example=torch.zeros(3, 6), keep_if="always", calibration=torch.zeros(3, 6)
    )
    assert [(row.layer, row.before) for row in report.rows] == [
        ("0", Cost(35, 90)),
        ("0.0", Cost(7, 18)),
        ("0.1", Cost(10, 15)),
    ]


@dataclass(frozen=True, kw_only=True)
class Peek(Halve):
    """Note each layer's calibration inputs."""

    seen: dict[str, list[torch.Tensor] | None]

    def replace(self, layer: Layer) -> nn.Module | Keep:
        self.seen[layer.name] = None if layer.calibration is None else list(layer.calibration())
        return super().replace(layer)


def test_calibration_inputs_of_a_layer() -> None:
    model, inputs = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), torch.randn(3, 6)
    technique = Peek(seen={})
    transform(model, technique, calibration=inputs)
    (first,), (second,) = technique.seen["0"] or [], technique.seen["2"] or []
    assert torch.equal(first, inputs)
    assert torch.equal(second, model[:2](inputs))
    transform(model, technique)
    assert technique.seen == {"0": None, "2": None}


@dataclass(frozen=True, kw_only=True)
class Prepared(Halve):
    """Notes what it is asked to prepare for, and answers with a technique of another share."""

    seen: list[tuple[list[str], Cost]]

    def prepare(self, layers: object, network: Cost) -> Technique:
        self.seen.append(([layer.name for layer in layers], network))  # type: ignore[attr-defined]
        return Wrap()


def test_prepare_sees_the_selected_layers_and_the_network() -> None:
    technique = Prepared(seen=[], select=["0", "3"])
    _, report = transform(network(), technique, keep_if="always")
    # All dense and convolution layers of the network: 35 + 24 + 20 + 10, and weights 30 + 20 + 16 + 8.
    assert technique.seen == [(["0", "3"], Cost(89, 74))]
    assert [(row.technique, row.replaced) for row in report.rows] == [("Wrap", True), ("Wrap", False), ("Wrap", True)]


def test_recover_runs_after_each_replacement() -> None:
    kinds: list[list[str]] = []

    def recover(model: nn.Module) -> None:
        kinds.append([type(model.get_submodule(name)).__name__ for name in ("0", "2.0", "3")])

    transform(network(), Halve(), recover=recover)
    assert kinds == [["Sequential", "Linear", "Linear"], ["Sequential", "Sequential", "Linear"]]


def test_recover_may_return_another_model_that_the_rest_is_done_on() -> None:
    def recover(model: nn.Module) -> nn.Module:
        model = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(7.0)
        return model

    new, report = transform(network()[:1].append(nn.Linear(5, 4)), Wrap(), keep_if="always", recover=recover)
    assert [row.replaced for row in report.rows] == [True, True]
    assert all(isinstance(new[index], nn.Sequential) for index in (0, 1))
    assert all(parameter.eq(7.0).all() for parameter in new.parameters())


def test_recover_must_keep_the_layers() -> None:
    with pytest.raises(InvalidType, match="layer '2.0': recover: .* here a Linear, found none"):
        transform(network(), Halve(), recover=lambda model: nn.Sequential(model[0]))  # type: ignore[index]
    with pytest.raises(InvalidType, match="recover: expected a model, or None after training in place, found list"):
        transform(network(), Halve(), recover=lambda model: [])  # type: ignore[arg-type, return-value]


@dataclass(frozen=True, kw_only=True)
class Outer(Technique):
    """Replace blocks and the layers in them."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Sequential, nn.Linear)

    def replace(self, layer: Layer) -> nn.Module | Keep:
        return Keep("is the whole") if layer.name == "" else nn.Identity()


def test_parts_of_a_replaced_block_are_gone() -> None:
    new, report = transform(network(), Outer())
    assert [(row.layer, row.replaced, row.reason) for row in report.rows] == [
        ("", False, "is the whole"),
        ("0", True, "Identity()"),
        ("2", True, "Identity()"),
        ("2.0", False, "is part of layer '2', which was replaced"),
        ("3", True, "Identity()"),
    ]
    assert isinstance(new[2], nn.Identity)


def test_a_layer_that_is_left_alone_keeps_its_gradients() -> None:
    """`inherit` sets those of a bias that the replacement took over."""

    @dataclass(frozen=True, kw_only=True)
    class Borrow(Halve):
        def replace(self, layer: Layer) -> nn.Module | Keep:
            replacement = nn.Linear(layer.in_features, layer.out_features)
            replacement.bias = layer.bias
            return inherit(replacement, layer.module)

    model = nn.Sequential(nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)
    new, report = transform(model, Borrow())
    assert not report.rows[0].replaced
    assert (new[0].weight.requires_grad, new[0].bias.requires_grad) == (True, False)


def test_hooks_are_not_shown_layers_without_values() -> None:
    """Costs are counted on PyTorch's meta device, where a hook that looks at values would fail."""
    model, sums = nn.Sequential(nn.Linear(2, 2)), []
    model[0].register_forward_hook(lambda module, args, output: sums.append(output.sum().item()))
    _, report = transform(model, Halve(), example=torch.zeros(1, 2))
    assert report.rows[0].before == Cost(6, 4)


class L2(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else x


class Clock(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.sum())


def test_layers_that_nobody_asked_about_are_not_called_for_their_cost() -> None:
    model = nn.Sequential(nn.Linear(6, 5), L2(5, 5), nn.Linear(5, 4))
    model[2].register_forward_pre_hook(lambda module, args: args if args[0].sum() > 0 else None)
    technique = Prepared(seen=[], select="0")
    _, report = transform(model, technique, example=torch.ones(1, 6), keep_if="always")
    assert technique.seen == [(["0"], Cost(35 + 30 + 24, 30 + 25 + 20))]
    assert [(row.layer, row.before) for row in report.rows] == [("0", Cost(35, 30)), ("2", Cost(24, 20))]


def test_a_cost_that_cannot_be_counted_names_the_layer() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Clocks(Halve):
        handles: ClassVar[tuple[type[nn.Module], ...]] = (Clock,)

    message = "^layer '1': cost of a Clock: expected .*; override Technique.cost$"
    with pytest.raises(InvalidArgument, match=message) as caught:
        transform(nn.Sequential(nn.Linear(6, 5), Clock()), Clocks(), example=torch.ones(1, 6))
    assert caught.value.layer == "1"


@dataclass(frozen=True, kw_only=True)
class Activation(Technique):
    """Replace what is no dense or convolution layer."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.GELU,)

    def replace(self, layer: Layer) -> nn.Module | Keep:
        return nn.ReLU()


def test_layers_of_all_types_have_shapes() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU())
    judge = alone(lambda layer, new: Verdict(layer.input_shapes == (torch.Size((3, 6)),), ""))
    new, _ = transform(model, Activation(), example=torch.zeros(3, 4), keep_if="faster", judge=judge)
    assert isinstance(new[1], nn.ReLU)


def test_error_and_times_are_columns_where_there_are_any() -> None:
    def columns(report: object) -> list[str]:
        return str(report).splitlines()[0].split()

    plain = ["layer", "type", "technique", "replaced", "note", "parameters", "->", "multiply-adds", "->"]
    judge = alone(lambda layer, new: Verdict(layer.name == "0", "not faster by 5%", 0.5, 0.25))
    model, x = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)), torch.zeros(1, 6)
    assert columns(transform(model, Halve())[1]) == plain
    assert columns(transform(model, Offer(built=[]))[1]) == [*plain, "error"]
    timed = transform(model, Halve(), example=x, keep_if="faster", judge=judge)[1]
    assert columns(timed) == [*plain, "ms", "->"]
    both = transform(model, Offer(built=[], select="0"), example=x, keep_if="faster", judge=judge)[1]
    assert columns(both) == [*plain, "error", "ms", "->"]
    first, second = str(both).splitlines()[2:4]
    assert first.split()[-7:] == ["35", "17", "30", "11", "0.250", "0.5000", "0.2500"]
    assert second.split()[-4:] == ["24", "24", "20", "20"]


def test_rows_are_data() -> None:
    (row,) = transform(nn.Linear(6, 5), Halve())[1].rows
    assert isinstance(row, LayerReport)
    assert (row.layer, row.kind, row.replaced, row.error, row.before_ms) == ("", "Linear", True, None, None)
