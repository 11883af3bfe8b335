"""Rebuilds results with `dvc repro`, several stages at a time.

DVC runs one stage after another, and a training by itself leaves most cores idle while its process
starts and builds its graph. Stages that need nothing of each other are dealt out to processes of
`dvc repro`, which DVC's own locks let share a project.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from itertools import chain

import networkx as nx
import psutil
from dvc.repo import Repo

_DVC = (sys.executable, "-m", "dvc")


def plan(graph: nx.DiGraph, targets: list[str]) -> list[list[list[str]]]:
    """Sorts out what can be rebuilt at the same time.

    Args:
        graph: an edge from each stage to each that it depends on, by their addresses.
        targets: the stages that are asked for; none means all.

    Returns:
        Rounds of groups of stages. The groups of a round need nothing of each other. A training,
        whose stage is named `train...`, forms a group with what depends on no other one, such as
        its evaluation, in order; any other stage is a group of its own.
    """
    wanted = graph.subgraph(_with_dependencies(graph, targets or graph))
    trainings = {stage for stage in wanted if stage.rpartition(":")[2].startswith("train")}
    groups, group_of = {}, {}
    for stage in reversed(list(nx.lexicographical_topological_sort(wanted))):
        trained = _with_dependencies(wanted, [stage]) & trainings
        group_of[stage] = trained.pop() if len(trained) == 1 else stage
        groups.setdefault(group_of[stage], []).append(stage)
    order = nx.DiGraph()
    order.add_nodes_from(groups)
    order.add_edges_from((group_of[b], group_of[a]) for a, b in wanted.edges)
    order.remove_edges_from(list(nx.selfloop_edges(order)))
    return [[groups[name] for name in sorted(ready)] for ready in nx.topological_generations(order)]


def _with_dependencies(graph, stages):
    return set(stages).union(*(nx.descendants(graph, stage) for stage in stages))


def run(rounds: list[list[list[str]]], targets: list[str], jobs: int) -> int:
    """Rebuilds stages, and looks at last whether all is up to date.

    Args:
        rounds: see `plan`.
        targets: as given to `plan`.
        jobs: processes of `dvc repro` that work at the same time.

    Returns:
        The exit status. Where a process fails the others finish their round, the last.
    """
    for groups in rounds if jobs > 1 else []:
        hands = (groups[first::jobs] for first in range(min(jobs, len(groups))))
        workers = [_start(chain.from_iterable(hand), line) for line, hand in enumerate(hands)]
        if any([worker.wait() for worker in workers]):
            print("Not all stages could be rebuilt, as said above.", file=sys.stderr)
            return 1
    return subprocess.call([*_DVC, "repro", *targets])


def _start(stages, line):
    # To look at a stage whose output another process reads is refused, hence --single-item.
    command = [*_DVC, "--wait-for-lock", "repro", "--single-item", *stages]
    # In a terminal the progress bars get a line each.
    position = {"TQDM_POSITION": str(line)} if sys.stderr.isatty() else {}
    return subprocess.Popen(command, env=os.environ | position)


def _terminate(number, frame):
    """Passes SIGTERM on, for which trainings save a checkpoint; DVC by itself would not."""
    del frame
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    sys.exit(128 + number)


def main() -> None:
    """Rebuilds the stages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="stages as `dvc repro` takes them; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time (default: 2)")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs is {arguments.jobs}; it must be at least 1.")
    signal.signal(signal.SIGTERM, _terminate)
    repo = Repo()
    graph = nx.relabel_nodes(repo.index.graph, {s: s.addressing for s in repo.index.graph})
    targets = [s.addressing for name in arguments.targets for s in repo.stage.collect(name)]
    try:
        sys.exit(run(plan(graph, targets), arguments.targets, arguments.jobs))
    except KeyboardInterrupt:  # which the processes that it started got as well
        psutil.wait_procs(psutil.Process().children())
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
