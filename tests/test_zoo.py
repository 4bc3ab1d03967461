"""The reference networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt import InvalidArgument, zoo
from netopt.datasets import friedman
from netopt.graph.capture import capture
from netopt.ops import Concat, Relayout
from netopt.program.lower import prepare
from netopt.program.options import Lowering
from netopt.zoo import mlp
from tests.pipelines import run_passes
from tests.tolerance import assert_within, judge


def test_mlp() -> None:
    model = mlp(8, 6, 4)
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert model(torch.randn(3, 8)).shape == (3, 4)
    assert len(mlp(8, 4)) == 1


def test_mlp_of_one_size() -> None:
    with pytest.raises(InvalidArgument, match=r"sizes of an mlp.*found \(8,\)"):
        mlp(8)


def randomized(model: nn.Module) -> nn.Module:
    """In eval mode, with running statistics as after training, so that folding has something to fold."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


@pytest.mark.parametrize("make", [zoo.resnet23, zoo.lenet5, zoo.mobilenet_v2_cifar, zoo.friedman_net])
def test_pretrained_weights_come_whole_and_in_eval_mode(make: Any) -> None:
    model, fresh = make(pretrained=True), make().state_dict()
    assert not model.training
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert all(not torch.equal(value, fresh[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("make", [zoo.resnet23, zoo.mobilenet_v2_cifar])
def test_pretrained_weights_of_other_classes(make: Any) -> None:
    with pytest.raises(InvalidArgument, match="classes: expected 10.*found 100"):
        make(100, pretrained=True)


def test_the_pretrained_regression_knows_the_function() -> None:
    """On inputs and in units as the data set has them; the noise alone has an error of 1."""
    model = zoo.friedman_net(pretrained=True)
    errors = {}
    for noise in (0.0, 1.0):
        _, test = friedman(training=1, noise=noise)
        with torch.inference_mode():
            errors[noise] = float(nn.functional.mse_loss(model(test.inputs), test.targets).sqrt())
    assert errors[1.0] == pytest.approx(1.0241, abs=0.001)  # as in bench/logs/friedman_net.log
    assert errors[0.0] < 0.2  # the error of the network itself


# name, model, input as small as the network allows or odd, parameters
NETWORKS = [
    ("lenet5", zoo.lenet5, (2, 1, 28, 28), 431_080),
    ("lenet_300_100", zoo.lenet_300_100, (2, 1, 28, 28), 266_610),
    ("resnet23", zoo.resnet23, (1, 3, 32, 32), 97_482),
    ("resnet18", zoo.resnet18, (1, 3, 47, 66), 11_689_512),
    ("resnet50", zoo.resnet50, (1, 3, 33, 40), 25_557_032),
    ("mobilenet_v2", zoo.mobilenet_v2, (2, 3, 45, 50), 3_504_872),
    ("mobilenet_v2_cifar", zoo.mobilenet_v2_cifar, (2, 3, 32, 32), 337_298),
    ("friedman_net", zoo.friedman_net, (3, 10), 4_929),
    ("efficientnet_b0", zoo.efficientnet_b0, (1, 3, 45, 50), 5_288_548),
    ("shufflenet_v2", zoo.shufflenet_v2, (2, 3, 45, 50), 2_278_604),
    ("squeezenet1_1", zoo.squeezenet1_1, (1, 3, 41, 50), 1_235_496),
]


@pytest.mark.parametrize(("name", "make", "shape", "parameters"), NETWORKS, ids=[row[0] for row in NETWORKS])
def test_networks_lower_and_agree_with_pytorch(name: str, make: Any, shape: tuple[int, ...], parameters: int) -> None:
    model = randomized(make())
    # As published; nnabla counts the 1,920 running statistics of resnet23, too: 99,402.
    assert sum(p.numel() for p in model.parameters()) == parameters
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    program = netopt.lower(model, x)
    with torch.no_grad():
        expected = model(x)
    (bounded,) = judge(run_passes(capture(model, x)[0]), [x])
    assert_within(program(x), bounded)
    # The bound grows with depth far beyond what roundings really do; this is what PyTorch's own result is apart.
    torch.testing.assert_close(program(x), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert program.arena_bytes <= 1.05 * program.memory_plan.lower_bound


@pytest.mark.parametrize("make", [zoo.efficientnet_b0, zoo.shufflenet_v2, zoo.mobilenet_v2, zoo.mobilenet_v2_cifar])
def test_no_copies_between_layouts(make: Any) -> None:
    network = prepare(make().eval(), torch.randn(1, 3, 64, 64), Lowering())
    assert not any(isinstance(node.op, Relayout) for node in network.graph.nodes)


def test_vit_tiny() -> None:
    """Three blocks on 48 x 48 pixels: 10 tokens. Nothing is copied between the dense layers and the attention."""
    with torch.device("meta"):
        full = zoo.vit_tiny()
    assert sum(p.numel() for p in full.parameters()) == 5_717_416  # as published for DeiT-Tiny
    model = zoo.vit_tiny(10, image=48, depth=3).eval()
    x = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    program = netopt.lower(model, x)
    graph = run_passes(capture(model, x)[0])
    (bounded,) = judge(graph, [x])
    assert_within(program(x), bounded)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)
    assert program.arena_bytes <= 1.05 * program.memory_plan.lower_bound
    kernels = [n.op.label for n in graph.nodes if not n.op.is_view(graph.node_types(n), graph.types[n.output])]
    block = ["layer_norm", "dense", "matmul", "softmax", "matmul", "dense + add", "layer_norm"]
    block += ["dense + gelu", "dense + add"]
    last = [*block[:2], "matmul", "softmax", "matmul", "slice", *block[5:]]  # the class token alone, from here on
    assert kernels == ["conv2d", "concat", "add", *block * 2, *last, "layer_norm", "dense"]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg19(batch_norm: bool) -> None:
    """Too large to run here at its full size: its plan is made, and its convolutions run on small images."""
    with torch.device("meta"):
        full = zoo.vgg19(batch_norm=batch_norm)
    assert sum(p.numel() for p in full.parameters()) == (143_678_248 if batch_norm else 143_667_240)
    model = randomized(zoo.vgg19(batch_norm=batch_norm)[:-8])
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(netopt.lower(model, x)(x), model(x), rtol=1e-3, atol=1e-5)


def test_densenet121() -> None:
    """Of its 240 kernels those of the first block are made and run; the plan is that of all."""
    model = randomized(zoo.densenet121())
    assert isinstance(model, nn.Sequential)
    assert sum(p.numel() for p in model.parameters()) == 7_978_856
    network = prepare(model, torch.randn(1, 3, 96, 96), Lowering())
    concats = [node.op for node in network.graph.nodes if isinstance(node.op, Concat)]
    assert len(concats) == 58
    assert all(op.in_place for op in concats)
    assert not any(isinstance(node.op, Relayout) for node in network.graph.nodes)
    assert network.plan.arena_bytes <= 1.05 * network.plan.lower_bound
    first, x = model[:3], torch.randn(2, 3, 37, 32)
    (bounded,) = judge(run_passes(capture(first, x)[0]), [x])
    assert_within(netopt.lower(first, x)(x), bounded)


def test_resnet23_fits_the_arena_of_the_tutorial() -> None:
    """Two activations of 64 x 32 x 32 float32 and no more, beside the halos of the 3 x 3 convolutions."""
    network = prepare(zoo.resnet23().eval(), torch.randn(1, 3, 32, 32), Lowering())
    halo = 4 * 32 * (34 * 34 - 32 * 32)
    assert network.plan.arena_bytes <= 524_288 + halo
    assert not any(isinstance(node.op, Relayout) for node in network.graph.nodes)
