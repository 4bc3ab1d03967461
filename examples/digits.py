"""Train a small dense network on real handwritten digits, factor it, retrain it, lower all three, and compare them.

Run by `make demo`. Everything is measured in this run, on one thread of this machine.
"""

from __future__ import annotations

import torch
from torch import nn

import netopt
from netopt.datasets import Split, digits
from netopt.factorization import SVD
from netopt.kernels.machine.cpu import host_cpu
from netopt.report import compare
from netopt.zoo import mlp


def train(model: nn.Module, data: Split, *, epochs: int, learning_rate: float) -> None:
    """Fit the model with Adam and a learning rate that falls to zero along a cosine."""
    batch = 64
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(data.labels)).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.images[chosen]), data.labels[chosen]).backward()
            optimizer.step()
        scheduler.step()
    model.eval()


def main() -> None:
    """Run the demonstration."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # eager PyTorch on one thread, as the programs are
    training, held_out = digits()

    original = mlp(64, 512, 512, 10)
    train(original, training, epochs=30, learning_rate=2e-3)

    technique = SVD(rank=0.1, select=lambda layer: not layer.is_last)
    factored = netopt.optimize(original, technique)
    print(factored.report, end="\n\n")
    retrained = netopt.optimize(
        original, technique, train=lambda model: train(model, training, epochs=15, learning_rate=1e-3)
    )

    versions = {"original": original, "factored": factored.model, "factored + retrained": retrained.model}
    comparison = compare(versions, held_out.images[:1], images=held_out.images, labels=held_out.labels)
    print(comparison, end="\n\n")
    agreeing = sum(row.agreeing or 0 for row in comparison.rows)
    total = len(versions) * len(held_out.labels)
    print(
        f"accuracy is that of the lowered programs; they and the models agree on {agreeing} of {total} held-out digits"
    )
    print(f"ratios are to the original; batch 1, one thread, float32; {host_cpu().target}")


if __name__ == "__main__":
    main()
