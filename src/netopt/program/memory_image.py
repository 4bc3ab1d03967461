"""The memory of a program: the arena, the constants as kernels read them, and values seen in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from netopt.graph import Graph, Node
from netopt.kernels.load_input import loader_of
from netopt.kernels.machine.buffers import aligned_array, aligned_bytes, array_at, array_bytes, strides_of
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Problem, Schedule
from netopt.kernels.registry import KERNELS
from netopt.memory import MemoryPlan, scratch_name
from netopt.numerics import FLOAT32, Array, Shape, align_up
from netopt.ops import Op, TensorType

# A constant as a kernel takes it: its name, the type of the op, its shape when packed, `Kernel.packing`.
Key = tuple[str, type[Op], Shape, tuple[int, ...]]
# Elements of an image from which on a kernel of ours, which takes 2 us to call, copies it faster than PyTorch does.
_SMALLEST_LOAD = 8192


class MemoryImage:
    """Where the values of a graph are while it runs. It keeps none of the graph's own constants.

    Attributes:
        arena: one block of bytes for all inputs, activations, outputs and scratch memory, as the plan places them.
    """

    def __init__(self, graph: Graph, plan: MemoryPlan, cpu: Cpu) -> None:
        """Allocate the arena; constants are copied when they are first asked for, and packed for `cpu`."""
        self.arena = aligned_bytes(plan.arena_bytes)
        self._types, self._offsets, self._cpu = graph.types, plan.offsets, cpu
        self._packed: dict[Key, Array] = {}
        self._reserved: dict[Key, Array] = {}
        self._copied: dict[str, Array] = {}

    @property
    def constant_bytes(self) -> int:
        """Bytes of the constants as they are held: packed, with padding."""
        return sum(array.nbytes for array in (*self._packed.values(), *self._copied.values()))

    # --- for kernels

    def reserve(self, graph: Graph, steps: Sequence[tuple[Node, Problem[Op], Schedule]]) -> None:
        """Put the constants of these steps one after the other in one piece of memory, in the order of their use."""
        offsets: dict[Key, int] = {}
        size = 0
        for node, problem, schedule in steps:
            shapes = KERNELS[type(node.op)].argument_shapes(problem, schedule, self._cpu)
            for name, shape in zip(node.inputs, shapes, strict=False):
                key = _key(name, problem, schedule, shape)
                if name in graph.constants and key not in offsets:
                    offsets[key] = size
                    size += align_up(array_bytes(shape, graph.types[name].format))
        memory = aligned_bytes(size)
        for key, offset in offsets.items():
            self._reserved[key] = array_at(memory, offset, key[2], graph.types[key[0]].format)

    def arguments(self, graph: Graph, node: Node, problem: Problem[Op], schedule: Schedule) -> list[Array]:
        """What the node's kernel is called with under this schedule: each input, then the output.

        The step must have been among those of `reserve`.
        """
        cpu, kernel = self._cpu, KERNELS[type(node.op)]
        shapes = kernel.argument_shapes(problem, schedule, cpu)
        arrays = []
        for index, (name, shape) in enumerate(zip((*node.inputs, node.output), shapes, strict=True)):
            if name not in graph.constants:
                arrays.append(self._array(name, shape))
                continue
            key = _key(name, problem, schedule, shape)
            if key not in self._packed:
                self._packed[key] = self._reserved.pop(key)
                value = problem.inputs[index].format.to_array(graph.constants[name])
                self._packed[key][...] = kernel.pack(problem, schedule, cpu, index, value)
            arrays.append(self._packed[key])
        return arrays

    def scratch(self, graph: Graph, node: Node) -> Array | None:
        """The memory that the node's kernel has for itself."""
        size = node.op.scratch_bytes(graph.node_types(node))
        return array_at(self.arena, self._offsets[scratch_name(node)], (size // 4,)) if size else None

    def unpack(self, node: Node, problem: Problem[Op], schedule: Schedule, index: int) -> torch.Tensor:
        """A constant input of the node in its own layout again."""
        kernel = KERNELS[type(node.op)]
        shape = kernel.argument_shapes(problem, schedule, self._cpu)[index]
        packed = self._packed[_key(node.inputs[index], problem, schedule, shape)]
        type_ = problem.inputs[index]
        return type_.format.to_tensor(kernel.unpack(problem, schedule, self._cpu, index, packed), type_.shape)

    # --- for the caller, and for PyTorch

    def place(self, name: str) -> torch.Tensor:
        """The value in the arena, seen in its logical shape whatever its layout."""
        type_ = self._types[name]
        memory = self._physical(name, type_)
        if not type_.layout.channels_last:
            return memory
        top, _, left, _ = type_.layout.halo
        _, _, height, width = type_.shape
        return memory[:, top : top + height, left : left + width].permute(0, 3, 1, 2)

    def with_halo(self, name: str) -> torch.Tensor | None:
        """All memory of an image with its halo; None where the value has no halo."""
        type_ = self._types[name]
        return self._physical(name, type_) if any(type_.layout.halo) else None

    def loader(self, name: str) -> Callable[[torch.Tensor], None] | None:
        """What writes a tensor into an image, halo included; None where PyTorch's copy is as fast, and the same."""
        type_ = self._types[name]
        is_same = type_.format == FLOAT32 and type_.shape[1:2] == (1,)
        if not type_.layout.channels_last or is_same or type_.elements < _SMALLEST_LOAD:
            return None
        return loader_of(type_, self._array(name, type_.layout.physical(type_.shape)), self._cpu)

    def place_or_copy(self, name: str, graph: Graph) -> torch.Tensor:
        """The value in the arena, or of a constant a copy."""
        if name not in graph.constants:
            return self.place(name)
        type_ = graph.types[name]
        copied = self._copied.setdefault(name, aligned_array(type_.shape, type_.format))
        copied[...] = type_.format.to_array(graph.constants[name])
        return type_.format.to_tensor(copied, type_.shape)

    def copies(self) -> dict[str, torch.Tensor]:
        """The constants that were copied as they are."""
        types = {name: self._types[name] for name in self._copied}
        return {name: types[name].format.to_tensor(array, types[name].shape) for name, array in self._copied.items()}

    def _physical(self, name: str, type_: TensorType) -> torch.Tensor:
        shape = type_.layout.physical(type_.shape)
        return type_.format.to_tensor(self._array(name, shape), shape)

    def _array(self, name: str, shape: Shape) -> Array:
        """The value in the arena as an array of the row-major shape `shape`."""
        type_ = self._types[name]
        return array_at(self.arena, self._offsets[name], shape, type_.format, strides_of(shape, type_))


def _key(name: str, problem: Problem[Op], schedule: Schedule, shape: Shape) -> Key:
    kind = type(problem.op)
    return name, kind, shape, KERNELS[kind].packing(problem, schedule)
