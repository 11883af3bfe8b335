"""Trains a small learner in processes that are killed again and again; run as a script.

    python killed_training.py KILLS DIRECTORY

TensorFlow is imported once, and a process is forked for each attempt: no operation runs before the
fork, so that TensorFlow's threads start in the children only. Kills come at random times: while
the child starts up, while it takes steps, and as soon as it is seen writing a checkpoint. Prints a
JSON object that says how each attempt ended.
"""

import contextlib
import gc
import itertools
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import factory
import keras
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf import checkpoint
from mmaml_tf.checkpoint import Checkpoints
from mmaml_tf.training import train

LOG_EVERY, WINDOWS = 5, 80
#: long enough that kills land on every part of a run: of a step, and of writing each file
STEP_SECONDS, SYNC_SECONDS = 0.003, 0.004
MOMENTS = ("starting", "stepping", "writing", "stepping")


class Slow(keras.callbacks.Callback):
    """Slows the steps down, and tells the parent of the first."""

    def __init__(self, ready):
        super().__init__()
        self.ready = ready

    def on_train_batch_end(self, batch, logs=None):
        if self.ready is not None:
            os.write(self.ready, b"1")
            self.ready = None
        time.sleep(STEP_SECONDS)


def run(directory, checkpoint_every, ready):
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    sync = checkpoint._sync
    checkpoint._sync = lambda path: (time.sleep(SYNC_SECONDS), sync(path))
    train(
        factory.learner("MAML", loop=factory.inner_loop(1)),
        mm.tasks.FunctionTasks(support=3, queries=2),
        iterations=WINDOWS * LOG_EVERY,
        batch_size=4,
        seed=1,
        log_every=LOG_EVERY,
        checkpoints=Checkpoints(directory, {"seed": 1}),
        checkpoint_every=checkpoint_every,
        callbacks=[Slow(ready)],
    )


@contextlib.contextmanager
def child(directory, checkpoint_every=LOG_EVERY):
    """Forks a training; yields its process and a file that is readable once it takes steps."""
    ready, tell = os.pipe()
    process = os.fork()
    if not process:
        status = 1
        try:
            os.close(ready)
            run(directory, checkpoint_every, tell)
            status = 0
        except SystemExit as error:
            status = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(tell)
    yield process, ready
    os.close(ready)


def end(process):
    """Waits for a process; a killed one gives its negative signal, as in `subprocess`."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def unfinished(directory):
    """The checkpoints that are being written, or whose writing was cut off, and since when."""
    found = set()
    for path in Path(directory).glob(".partial-*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            found.add((path.name, path.stat().st_ctime_ns))
    return found


def ended(process):
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def kill(directory, moment, delay):
    """Kills one attempt; returns how it ended and what it had come to."""
    before = unfinished(directory)
    with child(directory) as (process, ready):
        if moment != "starting":
            os.read(ready, 1)
        time.sleep(delay)
        while moment == "writing" and not (unfinished(directory) - before or ended(process)):
            pass
        os.kill(process, signal.SIGKILL)
        status = end(process)
    newest = max((int(p.name[5:]) for p in Path(directory).glob("step-*")), default=0)
    cut_off = bool(unfinished(directory) - before)
    return {"moment": moment, "status": status, "step": newest, "cut_off": cut_off}


def main(kills, folder):
    gc.freeze()  # or every child would look through what was imported
    folder = Path(folder)
    times = random.Random(0)
    with child(folder / "whole") as (process, ready):
        started = time.monotonic()
        os.read(ready, 1)
        start_up = time.monotonic() - started
        whole = end(process)
    attempts = []
    for moment in itertools.islice(itertools.cycle(MOMENTS), 2 * kills):
        limit = {"starting": start_up, "stepping": 0.5, "writing": 0.03}[moment]
        attempts.append(kill(folder / "killed", moment, times.uniform(0, limit)))
        if sum(attempt["status"] < 0 for attempt in attempts) == kills:
            break
    with child(folder / "killed") as (process, _):
        last = end(process)
    # The first checkpoint of this one would come at the end.
    with child(folder / "terminated", 10 * LOG_EVERY * WINDOWS) as (process, ready):
        os.read(ready, 1)
        time.sleep(times.uniform(0.0, 0.1))
        os.kill(process, signal.SIGTERM)
        terminated = end(process)
    after = [int(p.name[5:]) for p in (folder / "terminated").glob("step-*")]
    with child(folder / "terminated") as (process, _):
        resumed = end(process)
    print(
        json.dumps(
            {
                "attempts": attempts,
                "whole": whole,
                "last": last,
                "terminated": terminated,
                "terminated_at": after,
                "resumed": resumed,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
