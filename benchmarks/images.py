"""Benchmarks of few-shot classification: the convolutional network's meta-iteration."""

import itertools
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.processes import run

HERE = Path(__file__).parent
STEP = HERE / "image_step.py"
PEER = HERE / "peers" / "pytorch_images.py"
# By image size, the filters and the iterations of a repetition.
NETWORKS = {28: ((32, 32, 32, 32), 20), 84: ((32, 64, 128, 256), 3)}
VARIANTS = {
    "mmaml_tf, XLA, patches (default)": (),
    "mmaml_tf, no XLA, grouped": ("--no-xla", "--form", "grouped"),
    "mmaml_tf, no XLA, looped": ("--no-xla", "--form", "looped"),
    "mmaml_tf, no XLA, patches": ("--no-xla", "--form", "patches"),
}


def meta_iteration(a) -> list[str]:
    """Times one meta-iteration here in every form of convolution, and in the peer."""
    lines = [
        "## One meta-iteration of few-shot classification",
        "",
        "MAML, 10 tasks of 5-way 1-shot with 15 queries a class, 5 second-order inner steps, "
        "clipping and Adam. Ours draws fresh episodes inside the time; the peer's are drawn "
        "outside it. Loss and gradient norm on a common batch agree to 0.1 %.",
        "",
        "| images, filters | implementation | ms | range | times ours | first step, s |",
        "|---|---|---|---|---|---|",
    ]
    notes = []
    for size, (filters, iterations) in NETWORKS.items():
        rows, error = _rows(a, size, filters, iterations)
        ours = next(iter(rows.values()))
        name_of_network = f"{size}×{size}, {'–'.join(map(str, filters))}"
        for name, row in rows.items():
            ms = median(row["ms"])
            lines.append(
                f"| {name_of_network} | {name} ({row['version']}) | {ms:.1f} "
                f"| {min(row['ms']):.1f}–{max(row['ms']):.1f} | {ms / median(ours['ms']):.2f} "
                f"| {row['first_step_s']:.1f} |"
            )
        share = median(ours["ms"]) / ours["sampling_ms"]
        notes.append(
            f"Drawing a batch at {size}×{size} takes {ours['sampling_ms']:.1f} ms, a step "
            f"{share:.0f} times as long; peak memory {ours['peak_mib']:.0f} MiB. With the policy "
            "mixed_bfloat16 the meta-gradient of the common batch is off by "
            f"{100 * error:.1f} % of its norm."
        )
    return [*lines, "", *notes, ""]


def latency(a) -> list[str]:
    """Measures adapting to one new task and predicting, from the exported models."""
    lines = ["## Latency of the exported model", ""]
    for size, (filters, _) in NETWORKS.items():
        options = ["--size", size, "--filters", *filters]
        row = run(sys.executable, [HERE / "latency.py", *options], a.threads)
        lines.append(
            f"- {size}×{size}, one new 5-way 1-shot task, MMAML with 5 inner steps, 5 queries: "
            f"median {row['median_ms']:.1f} ms, 99th percentile {row['p99_ms']:.1f} ms."
        )
    return [*lines, ""]


def _rows(a, size, filters, iterations):
    common = ["--size", size, "--filters", *filters]
    common += ["--repetitions", a.repetitions, "--iterations", iterations]
    with tempfile.TemporaryDirectory() as folder:
        weights, batch = write_inputs(Path(folder), size, filters)
        common += ["--weights", weights, "--batch", batch]
        rows = {
            name: run(sys.executable, [STEP, *common, *options], a.threads)
            for name, options in VARIANTS.items()
        }
        gradients = []
        for dtype in ("float32", "mixed_bfloat16"):
            file = f"{folder}/{dtype}.npy"
            options = ["--repetitions", 0, "--no-xla", "--dtype", dtype, "--gradient", file]
            run(sys.executable, [STEP, *common, *options], a.threads)
            gradients.append(np.load(file))
        if a.peers:
            rows["PyTorch, loop over tasks"] = run(a.peers, [PEER, *common], a.threads)
    ours = next(iter(rows.values()))
    for name, row in rows.items():
        for key in ("loss", "gradient_norm"):
            if not np.isclose(row[key], ours[key], rtol=1e-3):
                raise SystemExit(f"{name} does other work: {key} {row[key]}, ours {ours[key]}")
    exact, rounded = gradients
    return rows, np.linalg.norm(rounded - exact) / np.linalg.norm(exact)


def write_inputs(folder: Path, size: int, filters) -> tuple[Path, Path]:
    """Writes the initial weights and the batch that every implementation is checked on."""
    rng = np.random.default_rng(0)
    sizes, weights = (3, *filters), {}
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        scale = np.sqrt(2 / (9 * before))
        weights[f"{i}_kernel"] = scale * rng.normal(size=(3, 3, before, after))
    weights["8_kernel"] = 0.1 * rng.normal(size=(filters[-1], 5))
    weights["9_bias"] = np.zeros(5)
    np.savez(folder / "weights.npz", **{k: v.astype(np.float32) for k, v in weights.items()})
    batch = {}
    for half, points in (("support", 1), ("query", 15)):
        labels = np.tile(np.repeat(np.arange(5, dtype=np.int32), points), (2, 1))
        batch[f"{half}_x"] = rng.random((2, 5 * points, size, size, 3), np.float32)
        batch[f"{half}_y"] = labels
    np.savez(folder / "batch.npz", **batch)
    return folder / "weights.npz", folder / "batch.npz"
