"""A plain trainer for networks that have lost some accuracy: labels, and the original as a teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from netopt.training.batches import Data
from netopt.training.distillation import Distillation
from netopt.training.options import Training
from netopt.training.trainer import Epoch


# Long by its options and what is said of each.
def retrain(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    lr: float = 1e-3,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    warmup: float = 0.05,
    label_smoothing: float = 0.0,
    clip_norm: float | None = None,
    bfloat16: bool = False,
    penalty: Callable[[nn.Module], torch.Tensor] | None = None,
    checkpoint: str | Path | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Train a copy of a classifier, and return it. The caller's model and random state are not changed.

    The learning rate rises linearly, then falls to zero along a cosine (Loshchilov and Hutter, 1608.03983). Vectors,
    such as biases and the parameters of normalization, have no weight decay, nor have latent weights, which are
    constrained after each step (`netopt.transform.constraints.Latent`). The device is the model's.

    Args:
        model: its output are logits (batch, classes). Modules in eval mode stay so, unless the whole model is in it.
        data: batches (inputs, labels): inputs are a tensor or a tuple of them, labels classes (batch,) as int64 or
            probabilities (batch, classes).
        epochs: how often to go through the data.
        lr: the largest learning rate.
        teacher: a network with the same inputs and outputs, such as the original; used in eval mode.
        distillation: how the teacher is used; by default `Distillation()`.
        optimizer: `(parameter groups, lr=...)` to an optimizer, such as `torch.optim.AdamW`, or
            `functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=5e-4)`.
        warmup: share of all steps in which the learning rate rises.
        label_smoothing: as of `F.cross_entropy`.
        clip_norm: bound on the norm of all gradients together.
        bfloat16: compute matrix products and convolutions at that precision: faster on CPUs and GPUs that have it.
        penalty: a further term of the loss, of the model, computed in each step.
        checkpoint: a file written after each epoch. If it is there at the start, training goes on from it, and gives
            what it would have given without the interruption, or is refused where the data do not allow it: those of
            the last epoch are read again to see that. It holds tensors, numbers and text, no code, with a checksum.
        evaluate: a score of the model in eval mode, computed after each epoch without gradients, for `on_epoch`.
        on_epoch: is told of each epoch, for a log.
        seed: of PyTorch's, NumPy's and Python's generators, from which the data may draw, and of PyTorch's, from which
            the model may; from 0.

    Raises:
        InvalidArgument: a number is out of range; data have no batches, or not as many as they say; labels or logits
            have another shape; a label is no class of the model; model or teacher do not take the inputs; the
            optimizer takes no groups or needs a closure; features are to match where no layer is replaced; the
            checkpoint is of another training or other data, damaged, or held by another training.
        InvalidType: an argument or a batch is of another type.
        NetoptError: the loss or a weight became NaN or infinite; says when. The last checkpoint stays.
    """
    training = Training(
        epochs=epochs,
        lr=lr,
        distillation=distillation,
        optimizer=optimizer,
        warmup=warmup,
        label_smoothing=label_smoothing,
        clip_norm=clip_norm,
        bfloat16=bfloat16,
        penalty=penalty,
        seed=seed,
    )
    return training.on(data, teacher=teacher, checkpoint=checkpoint, evaluate=evaluate, on_epoch=on_epoch)(model)
