"""One MMAML meta-iteration in JAX, `vmap` over the tasks and one `jit` of the whole step.

The peer for functional code: the encoder, the inner loop, the second-order gradient, clipping and
Adam are compiled into one program, whose state buffers are donated. The inner loops run for a
group of tasks at a time and their gradients are summed (see `--group`). Prints one JSON line; see
`--help`.
"""

import argparse
import json
import os
import time

import numpy as np

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
    parser.add_argument(
        "--group",
        type=int,
        default=5,
        help="tasks per vmap of the inner loop, lowered to a divisor of --tasks; 0 takes all",
    )
    return parser.parse_args()


ARGUMENTS = parse_arguments()
# XLA sizes its thread pool when it is loaded, by the cores the process may use.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: ARGUMENTS.threads])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402


def read_inputs() -> tuple[dict, list[np.ndarray]]:
    """Reads both npz files and checks their shapes against the command line."""
    with np.load(ARGUMENTS.weights) as file:
        weights = dict(file)
    with np.load(ARGUMENTS.batch) as file:
        batch = [file[key].astype(np.float32) for key in BATCH_KEYS]
    for key, array in zip(BATCH_KEYS, batch, strict=True):
        points = ARGUMENTS.support if key.startswith("support") else ARGUMENTS.query
        if array.shape != (ARGUMENTS.tasks, points, 1):
            raise ValueError(f"{key} has shape {array.shape}, not ({ARGUMENTS.tasks}, {points}, 1)")
    if weights["network_0"].shape != (1, ARGUMENTS.width):
        raise ValueError(f"network_0 has shape {weights['network_0'].shape}, not the asked width")
    return weights, batch


def make_batch(generator: np.random.Generator) -> list[np.ndarray]:
    """Draws tasks of which the first half are sinusoids and the others lines."""
    tasks, support, query = ARGUMENTS.tasks, ARGUMENTS.support, ARGUMENTS.query
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


def build_parameters(weights: dict[str, np.ndarray]) -> dict[str, list]:
    """Splits the named arrays into the two groups that are clipped separately."""
    count = sum(name.startswith("network_") for name in weights)
    lstm = [
        [
            [
                jnp.array(weights[f"lstm_{layer}_{direction}_{part}"])
                for part in ("kernel", "recurrent", "bias")
            ]
            for direction in ("forward", "backward")
        ]
        for layer in range(2)
    ]
    heads = [
        [jnp.array(weights[f"head_{index}_{part}"]) for part in ("kernel", "bias")]
        for index in range(count // 2 - 1)
    ]
    return {
        "network": [jnp.array(weights[f"network_{index}"]) for index in range(count)],
        "encoder": [lstm, heads],
    }


def run_lstm(parameters: list[jax.Array], sequence: jax.Array, reverse: bool) -> jax.Array:
    """Returns the outputs [K, units] of one direction over a sequence [K, features]."""
    kernel, recurrent, bias = parameters
    projected = sequence @ kernel + bias

    def cell(state, inputs):
        output, memory = state
        i, f, g, o = jnp.split(inputs + output @ recurrent, 4, axis=-1)
        memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(g)
        output = jax.nn.sigmoid(o) * jnp.tanh(memory)
        return (output, memory), output

    zero = jnp.zeros(recurrent.shape[0], sequence.dtype)
    # On five points the unrolled loop is as fast as the rolled one, or a little faster.
    _, outputs = jax.lax.scan(cell, (zero, zero), projected, reverse=reverse, unroll=True)
    return outputs


def modulate(encoder: list, x: jax.Array, y: jax.Array) -> list[jax.Array]:
    """Embeds the support set of one task and returns (gamma, beta) of each hidden layer."""
    lstm, heads = encoder
    sequence = jnp.concatenate([x, y], axis=-1)
    for forward, backward in lstm:
        ahead = run_lstm(forward, sequence, reverse=False)
        back = run_lstm(backward, sequence, reverse=True)
        sequence = jnp.concatenate([ahead, back], axis=-1)
    embedding = jnp.concatenate([ahead[-1], back[0]])
    return [jnp.split(embedding @ kernel + bias, 2) for kernel, bias in heads]


def mean_squared_error(network, modulation, x, y) -> jax.Array:
    """Loss of the modulated task network on the points [N, 1] of one task."""
    for index, (gamma, beta) in enumerate(modulation):
        x = x @ network[2 * index] + network[2 * index + 1]
        x = jax.nn.relu(x * (1.0 + gamma) + beta)
    return jnp.mean(jnp.square(x @ network[-2] + network[-1] - y))


def task_loss(network, modulation, support_x, support_y, query_x, query_y) -> jax.Array:
    """Adapts the task network to the support set and returns the loss on the query set."""
    # Unrolled: as a scan the meta-iteration takes a third longer on a CPU.
    for _ in range(ARGUMENTS.inner_steps):
        gradients = jax.grad(mean_squared_error)(network, modulation, support_x, support_y)
        network = jax.tree.map(
            lambda weight, gradient: (
                weight - INNER_LEARNING_RATE * jnp.clip(gradient, -INNER_CLIP, INNER_CLIP)
            ),
            network,
            gradients,
        )
    return mean_squared_error(network, modulation, query_x, query_y)


def group_size(tasks: int) -> int:
    """Returns the largest divisor of the number of tasks that `--group` allows."""
    limit = ARGUMENTS.group or tasks
    return max(size for size in range(1, tasks + 1) if tasks % size == 0 and size <= limit)


def loss_and_gradients(parameters: dict, batch: list) -> tuple[jax.Array, dict]:
    """Returns the mean query loss and its gradient for both groups of parameters.

    One `vmap` over 50 tasks needs 50 MB of temporary buffers, which the C library maps and faults
    in anew in every call: half of the time. Groups keep them small enough for the heap and cache.
    The encoder has no such buffers and sees all tasks at once.
    """
    network = parameters["network"]
    tasks = len(batch[0])
    size = group_size(tasks)

    def embed_all(encoder):
        return jax.vmap(modulate, in_axes=(None, 0, 0))(encoder, *batch[:2])

    def group_loss(network, modulation, *data):
        losses = jax.vmap(task_loss, in_axes=(None, 0, 0, 0, 0, 0))(network, modulation, *data)
        return jnp.sum(losses) / tasks

    def add_group(sums, inputs):
        loss, (gradients, modulation_gradients) = jax.value_and_grad(group_loss, argnums=(0, 1))(
            network, *inputs
        )
        return jax.tree.map(jnp.add, sums, (loss, gradients)), modulation_gradients

    modulation, pull_back = jax.vjp(embed_all, parameters["encoder"])
    groups = jax.tree.map(
        lambda array: array.reshape(-1, size, *array.shape[1:]), (modulation, *batch)
    )
    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, network))
    (loss, network_gradients), modulation_gradients = jax.lax.scan(add_group, zeros, groups)
    modulation_gradients = jax.tree.map(
        lambda array: array.reshape(tasks, *array.shape[2:]), modulation_gradients
    )
    (encoder_gradients,) = pull_back(modulation_gradients)
    return loss, {"network": network_gradients, "encoder": encoder_gradients}


OPTIMIZER = optax.chain(
    optax.partition(
        {name: optax.clip_by_global_norm(OUTER_CLIP) for name in ("network", "encoder")},
        {"network": "network", "encoder": "encoder"},
    ),
    optax.adam(OUTER_LEARNING_RATE, eps=1e-8),
)


def step(parameters, state, batch):
    """One meta-iteration; also returns the loss and both gradient norms before clipping."""
    loss, gradients = loss_and_gradients(parameters, batch)
    norms = [optax.global_norm(gradients[name]) for name in ("network", "encoder")]
    updates, state = OPTIMIZER.update(gradients, state, parameters)
    return optax.apply_updates(parameters, updates), state, (loss, *norms)


def main() -> None:
    weights, batch = read_inputs()

    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1))
    parameters = build_parameters(weights)
    state = OPTIMIZER.init(parameters)
    # The first step sees the given weights, so its loss and norms are those asked for.
    parameters, state, values = compiled(parameters, state, batch)
    loss, network_norm, encoder_norm = (value.item() for value in values)
    first_step = time.perf_counter() - start

    generator = np.random.default_rng(0)
    if ARGUMENTS.repetitions:
        for _ in range(WARM_UP):
            parameters, state, _ = compiled(parameters, state, make_batch(generator))
        jax.block_until_ready(parameters)
    milliseconds = []
    for _ in range(ARGUMENTS.repetitions):
        batches = [make_batch(generator) for _ in range(ARGUMENTS.iterations)]
        start = time.perf_counter()
        for fresh in batches:
            parameters, state, _ = compiled(parameters, state, fresh)
        jax.block_until_ready((parameters, state))
        milliseconds.append(1e3 * (time.perf_counter() - start) / ARGUMENTS.iterations)

    result = {
        "framework": "jax",
        "version": jax.__version__,
        "loss": loss,
        "network_gradient_norm": network_norm,
        "encoder_gradient_norm": encoder_norm,
        "first_step_s": first_step,
        "ms": milliseconds,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
