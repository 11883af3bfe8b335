"""Runs all benchmarks side by side and writes results/benchmarks, a file for each table.

Each measurement is a process of its own, limited to the same number of CPU cores. The peers run
in an environment of their own, which `make benchmark` creates.
"""

import argparse
import platform
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import distribution, images, policies
from benchmarks.processes import run

HERE = Path(__file__).parent
STEP = HERE / "mmaml_step.py"
PEERS = {
    "PyTorch, loop over tasks": [HERE / "peers" / "pytorch_loop.py"],
    "JAX, vmap over all tasks + jit": [HERE / "peers" / "jax_vmap.py", "--group", "0"],
    "JAX, vmap over groups of tasks + jit": [HERE / "peers" / "jax_vmap.py"],
}
GROWTH = {
    "tasks": ("--tasks", (10, 50, 100, 200)),
    "support points": ("--support", (5, 10, 20, 40)),
    "inner steps": ("--inner-steps", (1, 3, 5, 10)),
    "hidden units": ("--width", (40, 100, 200)),
}


def main() -> None:
    """Runs the benchmarks and writes a report for each table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all")
    parser.add_argument("--peers", type=Path, help="Python of the peers' environment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"))
    a = parser.parse_args()
    unknown = sorted(set(a.tables) - set(TABLES))
    if unknown:
        parser.error(f"unknown tables {unknown}; expected some of {', '.join(TABLES)}.")
    a.output.mkdir(parents=True, exist_ok=True)
    for table in a.tables or TABLES:
        lines = [
            f"# Benchmarks: {table}",
            "",
            f"{cpu_name()}, {a.threads} threads for everyone, Python {platform.python_version()}.",
            "Every figure is the median of the repetitions, each with fresh batches at every step.",
            "",
        ]
        for measure in TABLES[table]:
            section = measure(a)
            print("\n".join(section), flush=True)  # a later one that fails costs only itself
            lines += section
        report = a.output / f"{table}.md"
        report.write_text("\n".join(lines).rstrip() + "\n")
        print(f"Written to {report}.")


def meta_iteration(a) -> list[str]:
    """Times one meta-iteration here and in the peers, on the same work."""
    with tempfile.TemporaryDirectory() as folder:
        weights, batch = write_inputs(Path(folder))
        common = ["--weights", weights, "--batch", batch, "--repetitions", a.repetitions]
        ours = run(sys.executable, [STEP, *common], a.threads)
        rows = {"mmaml_tf, XLA (default)": ours}
        rows["mmaml_tf, no XLA"] = run(sys.executable, [STEP, *common, "--no-xla"], a.threads)
        if a.peers:
            for name, (script, *extra) in PEERS.items():
                if "PyTorch" in name:
                    extra = [*extra, "--iterations", 10]
                rows[name] = run(a.peers, [script, *common, *extra], a.threads)
    for name, row in rows.items():
        for key in ("loss", "network_gradient_norm", "encoder_gradient_norm"):
            if not np.isclose(row[key], ours[key], rtol=1e-3):
                raise SystemExit(f"{name} does other work: {key} {row[key]}, ours {ours[key]}")
    lines = [
        "## One meta-iteration of 2-mode regression",
        "",
        "50 tasks, 5 support and 5 query points, 5 second-order inner steps, MLP 3×100, FiLM on "
        "all hidden layers, 2-layer bi-LSTM(40) encoder, clipping and Adam. Loss and gradient "
        "norms on a common batch agree to 0.1 %.",
        "",
        "| implementation | ms | range | times ours | first step, s |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        ms = median(row["ms"])
        lines.append(
            f"| {name} ({row['version']}) | {ms:.1f} | {min(row['ms']):.1f}–{max(row['ms']):.1f} "
            f"| {ms / median(ours['ms']):.2f} | {row['first_step_s']:.1f} |"
        )
    return [*lines, ""]


def growth(a) -> list[str]:
    """Times how a meta-iteration grows with each dimension."""
    lines = [
        "## Growth",
        "",
        "The same meta-iteration with one dimension changed.",
        "",
        "| dimension | value | ms | first step, s | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, (option, values) in GROWTH.items():
        for value in values:
            arguments = [STEP, option, value, "--repetitions", 3, "--iterations", 50]
            row = run(sys.executable, arguments, a.threads)
            lines.append(
                f"| {name} | {value} | {median(row['ms']):.1f} | {row['first_step_s']:.1f} "
                f"| {row['peak_mib']:.0f} |"
            )
    return [*lines, ""]


def memory(a) -> list[str]:
    """Measures resident memory after 500 and after 5,000 iterations."""
    row = run(sys.executable, [HERE / "memory.py"], a.threads)
    early, late = row["resident_mib"]
    return [
        "## Memory",
        "",
        f"Resident after 500 iterations {early:.0f} MiB, after 5,000 {late:.0f} MiB: "
        f"{100 * (late / early - 1):+.2f} %.",
        "",
    ]


def latency(a) -> list[str]:
    """Measures adapting to one new task and predicting, from the exported model."""
    row = run(sys.executable, [HERE / "latency.py"], a.threads)
    return [
        "## Latency of the exported model",
        "",
        "One new task, 5 support points, 5 inner steps, 5 queries: "
        f"median {row['median_ms']:.2f} ms, 99th percentile {row['p99_ms']:.2f} ms.",
        "",
    ]


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """Writes the initial weights and the batch that every implementation is checked on."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return (0.1 * rng.normal(size=shape)).astype(np.float32)

    weights, sizes = {}, (1, 100, 100, 100, 1)
    for i in range(4):
        weights[f"network_{2 * i}"] = normal(sizes[i], sizes[i + 1])
        weights[f"network_{2 * i + 1}"] = normal(sizes[i + 1])
    for layer, size in enumerate((2, 80)):
        for direction in ("forward", "backward"):
            for name, shape in (
                ("kernel", (size, 160)),
                ("recurrent", (40, 160)),
                ("bias", (160,)),
            ):
                weights[f"lstm_{layer}_{direction}_{name}"] = normal(*shape)
    for i in range(3):
        weights[f"head_{i}_kernel"] = normal(80, 200)
        weights[f"head_{i}_bias"] = normal(200)
    x, q = (rng.uniform(-5, 5, size=(50, 5, 1)).astype(np.float32) for _ in range(2))
    slope = rng.uniform(-3, 3, size=(50, 1, 1)).astype(np.float32)
    batch = {"support_x": x, "support_y": slope * x, "query_x": q, "query_y": slope * q}
    np.savez(folder / "weights.npz", **weights)
    np.savez(folder / "batch.npz", **batch)
    return folder / "weights.npz", folder / "batch.npz"


def cpu_name() -> str:
    """Returns the processor's name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


TABLES = {
    "regression": [meta_iteration, growth, memory, latency],
    "classification": [images.latency, images.meta_iteration],
    "reinforcement": [policies.collection, policies.iteration],
    "distribution": [distribution.two_hosts],
}

if __name__ == "__main__":
    main()
