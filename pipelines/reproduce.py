"""Rebuilds results with `dvc repro`, several stages at a time.

DVC runs one stage after another, and a training by itself leaves most cores idle while its process
starts and builds its graph. Here stages that need nothing of each other run in processes of
`dvc repro` of their own, which DVC's locks let share a project. These processes and those of the
stages are forked from one that has imported the large packages already (see `warm_python`).
"""

import argparse
import contextlib
import os
import queue
import signal
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter

import networkx as nx
import psutil
from dvc.exceptions import DvcException
from dvc.repo import Repo

from pipelines import warm_python

_DVC = (sys.executable, "-m", "dvc")
#: what DVC and the stages import
_PACKAGES = (
    "dvc.cli",
    "dvc.commands.repro",
    "keras",
    "mlflow",
    "mujoco",
    "tf_agents.drivers.dynamic_step_driver",
)


def plan(graph: nx.DiGraph, targets: list[str]) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Divides stages into groups that are rebuilt by a process each.

    A training, whose stage is named `train...`, goes with what depends on no other one, such as
    its evaluation. Any other stage is a group of its own.

    Args:
        graph: an edge from each stage to each that it depends on, by their addresses.
        targets: the stages that are asked for; none means all.

    Returns:
        The stages of each group, in order, and the groups that each depends on. A group is named
        after its first stage.
    """
    wanted = graph.subgraph(_with_dependencies(graph, targets or graph))
    trainings = {stage for stage in wanted if stage.rpartition(":")[2].startswith("train")}
    groups, group_of = {}, {}
    for stage in reversed(list(nx.lexicographical_topological_sort(wanted))):
        trained = _with_dependencies(wanted, [stage]) & trainings
        group_of[stage] = trained.pop() if len(trained) == 1 else stage
        groups.setdefault(group_of[stage], []).append(stage)
    needs = {name: set() for name in groups}
    for stage, needed in wanted.edges:
        if group_of[stage] != group_of[needed]:
            needs[group_of[stage]].add(group_of[needed])
    return groups, needs


def _with_dependencies(graph, stages):
    return set(stages).union(*(nx.descendants(graph, stage) for stage in stages))


def run(
    groups: dict[str, list[str]], needs: dict[str, set[str]], jobs: int, path: str | None = None
) -> bool:
    """Rebuilds groups of stages, each as soon as what it depends on is there.

    Args:
        groups: see `plan`.
        needs: see `plan`.
        jobs: how many are rebuilt at the same time.
        path: a directory with other commands `dvc` and `python`, see `warm_python`.

    Returns:
        Whether all were. After one that failed no other is begun; those that run go on to their
        end.
    """
    lines = queue.SimpleQueue()
    for line in range(jobs):
        lines.put(line)

    def rebuild(name):
        line = lines.get()
        try:
            return name, _rebuild(groups[name], line, path)
        finally:
            lines.put(line)

    order = TopologicalSorter(needs)
    order.prepare()
    running, failed = set(), False
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while order.is_active() and not failed:
                running |= {pool.submit(rebuild, name) for name in sorted(order.get_ready())}
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for name, status in (future.result() for future in finished):
                    failed = failed or status != 0
                    order.done(name)
        except BaseException:  # a signal
            pool.shutdown(wait=False, cancel_futures=True)
            _terminate_all()
            raise
        pool.shutdown(cancel_futures=True)
    return not failed


def _rebuild(stages, line, path):
    dvc, environment = _DVC, dict(os.environ)
    if path is not None:
        dvc = [os.path.join(path, "dvc")]
        environment["PATH"] = os.pathsep.join([path, environment["PATH"]])
    # In a terminal the progress bars get a line each.
    if sys.stderr.isatty():
        environment["TQDM_POSITION"] = str(line)
    # To look at a stage whose output another process reads is refused, hence --single-item.
    command = [*dvc, "--wait-for-lock", "repro", "--single-item", *stages]
    return subprocess.call(command, env=environment)


def _warm_directory(stages):
    """Returns the directory of `warm_python`, or None where it is of no use or cannot be had."""
    if sys.platform != "linux" or not any(str(s.cmd).startswith("python ") for s in stages):
        return None
    try:
        return warm_python.directory(*_PACKAGES)
    except RuntimeError as error:
        print(f"Each process imports its packages itself: {error}", file=sys.stderr)
        return None


def _terminate_all():
    """Has trainings save a checkpoint and end; DVC by itself would not pass SIGTERM on to them."""
    servers = {server.pid for server in warm_python.SERVERS}
    processes = psutil.Process().children(recursive=True)
    processes = [process for process in processes if process.pid not in servers]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    # What ends before its trainings takes a container with it, or lets another run begin them.
    psutil.wait_procs(processes)


def _stop(number, frame):
    del frame
    _terminate_all()  # in whichever way they run
    sys.exit(128 + number)


def main() -> None:
    """Rebuilds the stages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="stages as `dvc repro` takes them; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time (default: 2)")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs is {arguments.jobs}; it must be at least 1.")
    signal.signal(signal.SIGTERM, _stop)
    if arguments.jobs > 1:
        try:
            repo = Repo()
            graph = nx.relabel_nodes(repo.index.graph, {s: s.addressing for s in repo.index.graph})
            targets = [s.addressing for name in arguments.targets for s in repo.stage.collect(name)]
            path = _warm_directory(repo.index.stages)
            rebuilt = run(*plan(graph, targets), arguments.jobs, path)
        except DvcException as error:  # an unknown target, or no project
            sys.exit(f"ERROR: {error}")
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        if not rebuilt:
            sys.exit("Not all stages could be rebuilt, as said above.")
    # With several at a time nothing should be left to do but to say so.
    sys.exit(subprocess.call([*_DVC, "repro", *arguments.targets]))


if __name__ == "__main__":
    main()
