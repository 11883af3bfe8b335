"""Resident memory of training after 500 and after 5,000 iterations. Prints one JSON line."""

import argparse
import json
import os


def main() -> None:
    """Trains and reads the process's resident memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import psutil

    import mmaml_tf as mm

    tasks = mm.tasks.FunctionTasks()
    learner = mm.MMAML(
        mm.networks.MLP((40, 40)),
        encoder=mm.encoders.SequenceEncoder(20, 1),
        inner_loop=mm.InnerLoop(2),
        modes=tasks.modes,
    )
    learner.compile("adam", "mse")
    resident = []
    for start, stop in ((0, 500), (500, 5000)):
        data = tasks.dataset(20, seed=0, start=start)
        learner.fit(
            data, epochs=stop // 100, initial_epoch=start // 100, steps_per_epoch=100, verbose=0
        )
        resident.append(psutil.Process().memory_info().rss / 2**20)
    print(json.dumps({"resident_mib": resident}))


if __name__ == "__main__":
    main()
