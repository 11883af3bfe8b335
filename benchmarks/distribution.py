"""Benchmarks of training on several hosts."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.processes import run

HOST = Path(__file__).parent / "hosts.py"
WORK = {
    "regression": "MMAML, MLP 3×100, 48 tasks, 5 inner steps",
    "images": "MAML, 4 convolutions of 32 filters, 28×28, 8 tasks of 5 ways, 3 inner steps",
}


def two_hosts(a) -> list[str]:
    """Times a step of one host, and of two that share it, each a process with one thread."""
    lines = [
        "## One host and two",
        "",
        "Processes with one core and one thread each, on one machine; with two, the outer gradient "
        "is summed over the loopback. Both take the same steps.",
        "",
        "| work | 1 process, ms a step | 2 processes | ratio |",
        "|---|---|---|---|",
    ]
    for work, text in WORK.items():
        one, two = (timed(work, hosts, a.repetitions) for hosts in (1, 2))
        lines.append(
            f"| {text} | {median(one):.1f} ({min(one):.1f}–{max(one):.1f}) "
            f"| {median(two):.1f} ({min(two):.1f}–{max(two):.1f}) "
            f"| {median(one) / median(two):.2f} |"
        )
    return [*lines, ""]


def timed(work: str, hosts: int, repetitions: int) -> list[float]:
    """Returns the milliseconds of a step, one number a repetition."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(hosts)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    cluster = ["--ports", *ports] if hosts > 1 else []
    common = [HOST, work, "--repetitions", repetitions, *cluster]
    with ThreadPoolExecutor(hosts) as pool:
        commands = [[*common, "--host", host] for host in range(hosts)]
        rows = list(pool.map(lambda command: run(sys.executable, command, 1), commands))
    return rows[0]["ms"]
