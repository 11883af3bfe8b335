"""One MMAML meta-iteration in PyTorch, one task after another in a Python loop.

The peer for code in the usual published style: a module for the task encoder, a functional
forward pass over an explicit list of weights, and one `torch.autograd.grad` with a graph per
inner step and task. Only the encoder sees all tasks at once. Prints one JSON line; see `--help`.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

INNER_LEARNING_RATE = 1e-3
INNER_CLIP = 10.0
OUTER_LEARNING_RATE = 1e-3
OUTER_CLIP = 2.0
WARM_UP = 10
BATCH_KEYS = ("support_x", "support_y", "query_x", "query_y")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help="npz file with the initial weights")
    parser.add_argument("--batch", required=True, help="npz file with the batch to check on")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--support", type=int, default=5)
    parser.add_argument("--query", type=int, default=5)
    parser.add_argument("--inner-steps", type=int, default=5)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=5, help="0 skips the timing")
    parser.add_argument("--iterations", type=int, default=100, help="per repetition")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def read_inputs(arguments: argparse.Namespace) -> tuple[dict, list[np.ndarray]]:
    """Reads both npz files and checks their shapes against the command line."""
    with np.load(arguments.weights) as file:
        weights = dict(file)
    with np.load(arguments.batch) as file:
        batch = [file[key].astype(np.float32) for key in BATCH_KEYS]
    for key, array in zip(BATCH_KEYS, batch, strict=True):
        points = arguments.support if key.startswith("support") else arguments.query
        if array.shape != (arguments.tasks, points, 1):
            raise ValueError(f"{key} has shape {array.shape}, not ({arguments.tasks}, {points}, 1)")
    if weights["network_0"].shape != (1, arguments.width):
        raise ValueError(f"network_0 has shape {weights['network_0'].shape}, not the asked width")
    return weights, batch


def make_batch(
    generator: np.random.Generator, tasks: int, support: int, query: int
) -> list[np.ndarray]:
    """Draws tasks of which the first half are sinusoids and the others lines."""
    x = generator.uniform(-5.0, 5.0, (tasks, support + query, 1))
    amplitude, frequency, phase, slope, intercept = (
        generator.uniform(low, high, (tasks, 1, 1))
        for low, high in ((0.1, 5.0), (0.5, 2.0), (0.0, 2.0 * np.pi), (-3.0, 3.0), (-3.0, 3.0))
    )
    is_sinusoid = (np.arange(tasks) < tasks // 2)[:, None, None]
    y = np.where(is_sinusoid, amplitude * np.sin(frequency * x + phase), slope * x + intercept)
    y += generator.normal(0.0, 0.3, y.shape)
    parts = (x[:, :support], y[:, :support], x[:, support:], y[:, support:])
    return [np.ascontiguousarray(part, dtype=np.float32) for part in parts]


class Encoder(nn.Module):
    """Embeds a support set and predicts the modulation of each hidden layer."""

    def __init__(self, weights: dict[str, np.ndarray]):
        super().__init__()
        units = weights["lstm_0_forward_recurrent"].shape[0]
        self.units = units
        self.lstm = nn.LSTM(2, units, num_layers=2, bidirectional=True, batch_first=True)
        heads = sum(name.startswith("head_") for name in weights) // 2
        self.heads = nn.ModuleList(
            nn.Linear(*weights[f"head_{index}_kernel"].shape) for index in range(heads)
        )
        self._load(weights)

    @torch.no_grad()
    def _load(self, weights: dict[str, np.ndarray]) -> None:
        for layer in range(2):
            for direction, suffix in (("forward", ""), ("backward", "_reverse")):
                source = f"lstm_{layer}_{direction}"
                target = f"l{layer}{suffix}"
                for name, key in (("weight_ih", "kernel"), ("weight_hh", "recurrent")):
                    parameter = getattr(self.lstm, f"{name}_{target}")
                    parameter.copy_(torch.from_numpy(weights[f"{source}_{key}"].T))
                bias = getattr(self.lstm, f"bias_ih_{target}")
                bias.copy_(torch.from_numpy(weights[f"{source}_bias"]))
                # The model has one bias vector per direction. The second one of torch.nn.LSTM
                # stays frozen at zero: trained, it would double each step of the bias.
                extra = getattr(self.lstm, f"bias_hh_{target}")
                extra.zero_()
                extra.requires_grad_(False)
        for index, head in enumerate(self.heads):
            head.weight.copy_(torch.from_numpy(weights[f"head_{index}_kernel"].T))
            head.bias.copy_(torch.from_numpy(weights[f"head_{index}_bias"]))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Returns (gamma, beta) of each hidden layer for support sets [N, K, 1]."""
        outputs, _ = self.lstm(torch.cat([x, y], dim=-1))
        embedding = torch.cat([outputs[:, -1, : self.units], outputs[:, 0, self.units :]], dim=-1)
        return [head(embedding).chunk(2, dim=-1) for head in self.heads]


def forward(
    weights: list[torch.Tensor],
    modulation: list[tuple[torch.Tensor, torch.Tensor]],
    x: torch.Tensor,
) -> torch.Tensor:
    """Applies the task network with explicit weights to the points [N, 1] of one task."""
    for index, (gamma, beta) in enumerate(modulation):
        x = functional.linear(x, weights[2 * index], weights[2 * index + 1])
        x = torch.relu(x * (1.0 + gamma) + beta)
    return functional.linear(x, weights[-2], weights[-1])


def adapt(
    weights: list[torch.Tensor],
    modulation: list[tuple[torch.Tensor, torch.Tensor]],
    x: torch.Tensor,
    y: torch.Tensor,
    steps: int,
) -> list[torch.Tensor]:
    """Runs the inner loop of one task and keeps its graph."""
    for _ in range(steps):
        loss = functional.mse_loss(forward(weights, modulation, x), y)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        weights = [
            weight - INNER_LEARNING_RATE * gradient.clamp(-INNER_CLIP, INNER_CLIP)
            for weight, gradient in zip(weights, gradients, strict=True)
        ]
    return weights


class Trainer:
    """Holds the parameters and the optimizer; each call of `step` is one meta-iteration."""

    def __init__(self, weights: dict[str, np.ndarray], inner_steps: int):
        self.inner_steps = inner_steps
        count = sum(name.startswith("network_") for name in weights)
        # functional.linear takes [out, in] kernels.
        self.network = [
            torch.from_numpy(weights[f"network_{index}"].T.copy()).requires_grad_()
            for index in range(count)
        ]
        self.encoder = Encoder(weights)
        self.encoder_parameters = [p for p in self.encoder.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            [*self.network, *self.encoder_parameters], lr=OUTER_LEARNING_RATE, eps=1e-8
        )

    def step(self, batch: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Updates the parameters; returns the loss and both gradient norms before clipping."""
        support_x, support_y, query_x, query_y = (torch.from_numpy(array) for array in batch)
        # One call for all tasks takes a fifth off the step, compared with a call in the loop.
        modulations = self.encoder(support_x, support_y)
        losses = []
        for task in range(len(support_x)):
            x, y = support_x[task], support_y[task]
            modulation = [(gamma[task], beta[task]) for gamma, beta in modulations]
            adapted = adapt(self.network, modulation, x, y, self.inner_steps)
            prediction = forward(adapted, modulation, query_x[task])
            losses.append(functional.mse_loss(prediction, query_y[task]))
        loss = torch.stack(losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        network_norm = nn.utils.clip_grad_norm_(self.network, OUTER_CLIP)
        encoder_norm = nn.utils.clip_grad_norm_(self.encoder_parameters, OUTER_CLIP)
        self.optimizer.step()
        return loss.detach(), network_norm, encoder_norm


def measure(trainer: Trainer, arguments: argparse.Namespace) -> list[float]:
    """Returns the milliseconds per meta-iteration of each repetition."""
    generator = np.random.default_rng(0)
    sizes = (arguments.tasks, arguments.support, arguments.query)
    for _ in range(WARM_UP):
        trainer.step(make_batch(generator, *sizes))
    milliseconds = []
    for _ in range(arguments.repetitions):
        batches = [make_batch(generator, *sizes) for _ in range(arguments.iterations)]
        start = time.perf_counter()
        for batch in batches:
            loss, _, _ = trainer.step(batch)
        loss.item()
        milliseconds.append(1e3 * (time.perf_counter() - start) / arguments.iterations)
    return milliseconds


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    weights, batch = read_inputs(arguments)

    start = time.perf_counter()
    trainer = Trainer(weights, arguments.inner_steps)
    # The first step sees the given weights, so its loss and norms are those asked for.
    loss, network_norm, encoder_norm = (value.item() for value in trainer.step(batch))
    first_step = time.perf_counter() - start

    result = {
        "framework": "pytorch",
        "version": torch.__version__,
        "loss": loss,
        "network_gradient_norm": network_norm,
        "encoder_gradient_norm": encoder_norm,
        "first_step_s": first_step,
        "ms": measure(trainer, arguments) if arguments.repetitions else [],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
