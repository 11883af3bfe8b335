"""One MAML meta-iteration of the convolutional network in PyTorch, task after task in a loop.

The peer for code in the usual published style: a functional forward pass over an explicit list
of weights, and one `torch.autograd.grad` with a graph per inner step and task. Prints one JSON
line; see `--help`.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch.nn import functional

INNER_STEPS, INNER_LEARNING_RATE, INNER_CLIP = 5, 0.05, 20.0
OUTER_LEARNING_RATE = 1e-3
WAYS, QUERIES = 5, 15
WARM_UP = 2


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help="npz file with the initial weights")
    parser.add_argument("--batch", required=True, help="npz file with the batch to check on")
    parser.add_argument("--size", type=int, default=28, help="height and width of the images")
    parser.add_argument("--filters", type=int, nargs="+", default=[32] * 4)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=5, help="0 skips the timing")
    parser.add_argument("--iterations", type=int, default=20, help="per repetition")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser.parse_args()


def read_weights(path, device) -> list[torch.Tensor]:
    """Reads kernels `[h, w, in, out]` and the linear layer `[in, out]` into PyTorch's layouts."""
    with np.load(path) as file:
        arrays = [torch.from_numpy(file[name]) for name in sorted(file.files)]
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    return [a.permute(axes[a.ndim]).contiguous().to(device).requires_grad_() for a in arrays]


def forward(weights, images):
    """Returns logits for `[N, C, H, W]` images."""
    *kernels, kernel, bias = weights
    z = images
    for convolution in kernels:
        z = functional.conv2d(z, convolution, stride=2, padding=1)
        z = functional.relu(functional.batch_norm(z, None, None, training=True))
    return functional.linear(z.mean((2, 3)), kernel, bias)


def meta_loss(weights, support_x, support_y, query_x, query_y):
    """Adapts to one task and returns its query loss."""
    for _ in range(INNER_STEPS):
        loss = functional.cross_entropy(forward(weights, support_x), support_y)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        weights = [
            w - INNER_LEARNING_RATE * g.clamp(-INNER_CLIP, INNER_CLIP)
            for w, g in zip(weights, gradients, strict=True)
        ]
    return functional.cross_entropy(forward(weights, query_x), query_y)


def backward(weights, batch) -> float:
    """Accumulates the gradient of the mean query loss and returns that loss."""
    total, tasks = 0.0, len(batch[0])
    for task in zip(*batch, strict=True):
        loss = meta_loss(weights, *task) / tasks
        loss.backward()
        total += float(loss)
    return total


def random_batch(rng, tasks, size):
    """Draws random images with labels in order."""
    batch = []
    for points in (1, QUERIES):
        shape = (tasks, WAYS * points, 3, size, size)
        batch.append(torch.from_numpy(rng.random(shape, np.float32)))
        batch.append(torch.arange(WAYS).repeat_interleave(points).repeat(tasks, 1))
    return batch


def main() -> None:
    """Checks the work on the given batch, then times fresh batches, drawn outside the clock."""
    a = parse_arguments()
    torch.set_num_threads(a.threads)
    weights = read_weights(a.weights, a.device)
    with np.load(a.batch) as file:
        batch = [
            torch.from_numpy(file[k]) for k in ("support_x", "support_y", "query_x", "query_y")
        ]
    batch = [b.permute(0, 1, 4, 2, 3).contiguous() if b.ndim == 5 else b.long() for b in batch]
    result = {"framework": "PyTorch", "version": torch.__version__}
    result["loss"] = backward(weights, [b.to(a.device) for b in batch])
    norms = [w.grad.square().sum() for w in weights]
    result["gradient_norm"] = float(torch.stack(norms).sum().sqrt())
    optimizer = torch.optim.Adam(weights, OUTER_LEARNING_RATE)
    rng, times = np.random.default_rng(0), []
    for step in range(WARM_UP + a.repetitions * a.iterations):
        batch = [b.to(a.device) for b in random_batch(rng, a.tasks, a.size)]
        start = time.perf_counter()
        optimizer.zero_grad()
        backward(weights, batch)
        optimizer.step()
        if a.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        if step == 0:
            result["first_step_s"] = seconds
        times.append(1e3 * seconds)
    times = np.reshape(times[WARM_UP:], (a.repetitions, a.iterations))
    result["ms"] = times.mean(axis=1).tolist()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
