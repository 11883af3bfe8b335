"""Benchmarks of reinforcement learning: collecting rollouts, and a whole iteration."""

import sys
from pathlib import Path
from statistics import median

from benchmarks.processes import run

HERE = Path(__file__).parent
ENVIRONMENTS = {"point_mass": 2, "reacher": 2, "ant": 3}  # with their inner steps


def collection(a) -> list[str]:
    """Times collecting rollouts, natively and by gymnasium's processes."""
    lines = [
        "## Collecting rollouts",
        "",
        "Environment steps per second of a whole collection, policy included: 40 tasks × 20 "
        "rollouts here, against `gymnasium.make_vec(..., num_envs=16, "
        'vectorization_mode="async")` driven by the same policy.',
        "",
        "| environment | ours | range | 16 processes | range | ours / processes |",
        "|---|---|---|---|---|---|",
    ]
    for environment in ENVIRONMENTS:
        command = [HERE / "policy_rollouts.py", "--environment", environment]
        command += ["--repetitions", a.repetitions]
        peer = [*command, "--tasks", 1, "--rollouts", 16, "--processes"]
        ours, theirs = (
            run(sys.executable, one, a.threads)["steps_per_s"] for one in (command, peer)
        )
        shown = [f"{median(r):,.0f} | {min(r):,.0f}–{max(r):,.0f}" for r in (ours, theirs)]
        ratio = median(ours) / median(theirs)
        lines.append(f"| {environment} | {' | '.join(shown)} | {ratio:.1f} |")
    return [*lines, ""]


def iteration(a) -> list[str]:
    """Times an iteration of both learners at the published size, and its parts."""
    lines = [
        "## One iteration",
        "",
        "40 tasks × 20 rollouts before and after each inner step, 5 optimizer epochs. Shares of "
        "the time; encoding is the one before sampling, the others belong to optimising.",
        "",
        "| environment | learner | s | sampling | advantages | encoding | adapting | optimising "
        "| first, s | peak memory, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for environment, steps in ENVIRONMENTS.items():
        for method in ("ProMP", "MultimodalProMP"):
            command = [HERE / "policy_step.py", "--environment", environment, "--method", method]
            command += ["--inner-steps", steps, "--repetitions", min(a.repetitions, 3)]
            row = run(sys.executable, command, a.threads)
            shares = " | ".join(f"{100 * share:.0f} %" for share in row["shares"].values())
            lines.append(
                f"| {environment} | {method} | {median(row['s']):.2f} | {shares} "
                f"| {row['first_s']:.0f} | {row['peak_mib']:.0f} |"
            )
    return [*lines, ""]
