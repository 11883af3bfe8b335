"""Training state on disk: atomic, checked and resumable.

A checkpoint is a directory that appears under its name only when it is complete. It holds the
learner's and the optimizer's raw arrays, the history of metrics, and a manifest with the step,
the configuration, library versions and a SHA-256 of every file.
"""

import hashlib
import io
import json
import os
import shutil
import warnings
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf.distribution import Replicas

_MANIFEST = "manifest.json"
_PARTIAL = ".partial-"
# What of a checkpoint is no array of the state.
_REST = "rest"


class CheckpointMismatchError(ValueError):
    """A checkpoint was written by a run with another configuration."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        step: outer steps taken.
        arrays: the state, see `learner_state`.
        history: rows of metrics up to `step`.
    """

    step: int
    arrays: dict[str, np.ndarray]
    history: list[dict]

    def to_bytes(self) -> bytes:
        """Returns the checkpoint for another host."""
        file = io.BytesIO()
        rest = json.dumps([self.step, self.history])
        np.savez(file, **self.arrays, **{_REST: np.frombuffer(rest.encode(), np.uint8)})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Checkpoint":
        """Returns what `to_bytes` wrote."""
        with np.load(io.BytesIO(data)) as file:
            arrays = dict(file)
        step, history = json.loads(arrays.pop(_REST).tobytes())
        return cls(step, arrays, history)


class Checkpoints:
    """The checkpoints of one training run in one directory.

    Args:
        directory: where they are kept; made if need be.
        config: everything that the result of the run depends on, as plain values.
        keep: number of checkpoints kept, at least 2 so that a damaged newest one costs little.
    """

    def __init__(self, directory: str | PathLike, config: dict, keep: int = 2):
        self.directory = Path(directory)
        self.config = json.loads(json.dumps(config))
        self.keep = max(keep, 2)

    def save(self, step: int, arrays: dict[str, np.ndarray], history: list[dict]) -> None:
        """Writes a checkpoint; an interruption at any instant leaves the earlier ones intact."""
        self.directory.mkdir(parents=True, exist_ok=True)
        final = self.directory / f"step-{step:09d}"
        partial = self.directory / f"{_PARTIAL}{final.name}"
        for leftover in (partial, final):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        np.savez(partial / "state.npz", **arrays)
        (partial / "history.json").write_text(json.dumps(history))
        manifest = {
            "step": step,
            "config": self.config,
            "versions": _versions(),
            "sha256": {f.name: _sha256(f) for f in sorted(partial.iterdir())},
        }
        (partial / _MANIFEST).write_text(json.dumps({**manifest, "digest": _digest(manifest)}))
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        os.rename(partial, final)
        _sync(self.directory)
        for old in self._complete()[: -self.keep]:
            shutil.rmtree(old)

    def restore(self) -> Checkpoint | None:
        """Reads the newest undamaged checkpoint; None when there is none.

        Warns of damaged ones, and of one that other versions of Keras or TensorFlow wrote.

        Raises:
            CheckpointMismatchError: if it belongs to another configuration; the message names
                what differs.
        """
        for directory in reversed(self._complete()):
            try:
                checkpoint, config, versions = _read(directory)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                warnings.warn(
                    f"checkpoint {directory} is damaged ({error}); trying the one before it.",
                    stacklevel=2,
                )
                continue
            differing = differences(config, self.config)
            if differing:
                raise CheckpointMismatchError(
                    f"checkpoint {directory} was written with other parameters: "
                    f"{'; '.join(differing)}. Use another directory, or delete this one."
                )
            if versions != _versions():
                warnings.warn(
                    f"checkpoint {directory} was written with {versions}, and this is "
                    f"{_versions()}: the run goes on, but need not end with the same bytes as one "
                    "that was not interrupted.",
                    stacklevel=2,
                )
            return checkpoint
        return None

    def _complete(self):
        return sorted(self.directory.glob("step-*")) if self.directory.exists() else []


def restore_on_all_hosts(checkpoints: Checkpoints | None, replicas: Replicas) -> Checkpoint | None:
    """Returns the first host's newest checkpoint on every host; None when there is none.

    The others need no directory of their own, and cannot go on from another step.

    Raises:
        CheckpointMismatchError: on every host, see `Checkpoints.restore`.
    """
    if replicas.hosts == 1:
        return checkpoints and checkpoints.restore()
    found = refusal = None
    if checkpoints is not None and replicas.host == 0:
        try:
            found = checkpoints.restore()
        except CheckpointMismatchError as error:
            refusal = error
    text = str(refusal or "").encode()
    text, data = map(replicas.from_first_host, (text, found.to_bytes() if found else b""))
    if text:
        raise refusal or CheckpointMismatchError(text.decode())
    return Checkpoint.from_bytes(data) if data else None


def differences(stored: dict, given: dict, prefix: str = "") -> list[str]:
    """Lists where two nested configurations differ, as "path: stored -> given"."""
    lines = []
    for key in sorted({*stored, *given}):
        a, b = stored.get(key, "(absent)"), given.get(key, "(absent)")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} in the checkpoint, {b} now")
    return lines


def learner_state(learner: keras.Model) -> dict[str, np.ndarray]:
    """Returns all weights and the optimizer's variables as arrays by name."""
    return {name: np.asarray(v) for name, v in _variables(learner).items()}


def set_learner_state(learner: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Sets what `learner_state` returned.

    Raises:
        ValueError: when positions or shapes do not match, naming them; nothing is set then.
    """
    variables, arrays = _by_position(_variables(learner)), _by_position(arrays)
    unmatched = {(variables | arrays)[key][0] for key in set(variables) ^ set(arrays)}
    if unmatched:
        raise ValueError(f"state does not fit the learner: {sorted(unmatched)} differ.")
    for key, (name, variable) in variables.items():
        if tuple(variable.shape) != arrays[key][1].shape:
            raise ValueError(
                f"{name} has shape {tuple(variable.shape)}, the stored array "
                f"{arrays[key][1].shape}."
            )
    for key, (_, variable) in variables.items():
        variable.assign(arrays[key][1])


def _by_position(named):
    """Keys a state by kind and position: names hold numbers that Keras counts in a process."""
    return {name.partition("/")[0]: (name, value) for name, value in named.items()}


def _variables(learner):
    # Random layers draw from seeds, which Keras does not count among the weights.
    state = {id(v): v for v in (*learner.weights, *learner.state)}
    kept = list(state.values())
    weights = {f"weight_{i:03d}/{v.name}": v for i, v in enumerate(kept)}
    optimizer = learner.optimizer.variables if learner.compiled else []
    return weights | {f"optimizer_{i:03d}/{v.name}": v for i, v in enumerate(optimizer)}


def _read(directory):
    manifest = json.loads((directory / _MANIFEST).read_text())
    if manifest.pop("digest") != _digest(manifest):
        raise ValueError("the manifest was altered")
    for name, sha256 in manifest["sha256"].items():
        if _sha256(directory / name) != sha256:
            raise ValueError(f"{name} was altered")
    with np.load(directory / "state.npz") as file:
        arrays = dict(file)
    history = json.loads((directory / "history.json").read_text())
    checkpoint = Checkpoint(manifest["step"], arrays, history)
    return checkpoint, manifest["config"], manifest["versions"]


def _versions():
    return {"keras": keras.__version__, "tensorflow": tf.__version__}


def _digest(manifest):
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
