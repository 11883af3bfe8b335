"""The pictures of single domains, from what evaluations keep beside the scores.

Results that were measured before evaluations kept this have pictures in `records/` instead.
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from pipelines import embedding_maps
from pipelines.report.domains import METHODS, group_title, label
from pipelines.report.figures import Figure
from pipelines.report.frame import Scores
from pipelines.report.style import MODE_STYLE, SETTINGS, WIDTH, mode_handles, note, panels, save
from pipelines.report.tables import Numbers

#: by the beginning of a picture's name, its heading and caption
CAPTIONS = {
    "functions": (
        "Functions",
        "Three example tasks per mode (one row each), not among the held-out tasks: support "
        "points, the function without noise, and the predictions of MMAML (FiLM) after modulation "
        "and after each inner step, from light to dark; dashed, MAML after as many inner steps. "
        "One seed (the first that is here); panels have different vertical axes, and curves that "
        "do not fit may leave them.",
    ),
    "episodes": (
        "Example tasks",
        "A test task of each mode: its support images, one of each class, and queries with their "
        "classes. Classes have no other names than these numbers, which are new in each task.",
    ),
    "trajectories": (
        "Rollouts",
        "Point mass: one rollout of up to four held-out goals (stars) of each mode, before "
        "adaptation and after each inner step; a dot marks its end. One seed (the first that is "
        "here); paths may leave the picture.",
    ),
    "frames": (
        "Rollouts",
        "{environment}: one rollout of MMAML for the first held-out goal (red) of two modes, "
        "before adaptation and after the last inner step. One seed (the first that is here).",
    ),
    "embeddings": (
        "Task embeddings",
        "t-SNE maps of the task embeddings of MMAML{environment}, coloured by mode, one seed (the "
        f"first that is here), random_state {embedding_maps.RANDOM_STATE}{{settings}}. The "
        "silhouette is that of the modes among the raw embeddings (Euclidean distances; 1 is "
        "separate, 0 is mixed).",
    ),
    "confusions": (
        "Task embeddings",
        "The mode whose centroid is nearest to a task's raw embedding, in % of the tasks of its "
        "true mode (row){environment}. Centroids are of the first half of each mode's embedded "
        "tasks, the other half is classified; in the title, how much of it correctly, and chance.",
    ),
}
_RECORD = " Drawn by an earlier version of the report; what it was drawn from was not kept."


def record(name: str, domain: str) -> Figure | None:
    """Returns the figure of a picture that was drawn before, or None for one that is not known."""
    kind, _, rest = Path(name).stem.partition("_")
    return _figure(kind, name, rest, domain, _RECORD) if kind in CAPTIONS else None


def _figure(kind, name, environment="", domain=None, more=""):
    heading, caption = CAPTIONS[kind]
    title = group_title(environment)
    if kind == "functions":
        caption = f"{title} modes. {caption}"
    shown = title.capitalize() if kind == "frames" else f", {title}" if title else ""
    settings = f", {embedding_maps.SETTINGS[domain]}" if domain else ""
    return Figure(heading, name, caption.format(environment=shown, settings=settings) + more)


def _first(scores: Scores, method: str, tasks: str, key: str) -> dict | None:
    """Returns the arrays of the first seed of a method whose evaluation kept `key`."""
    for run in scores.of(method, tasks).values():
        if len(run.names) == 1 and method != "bayes":
            arrays = scores.arrays(run.names[0])
            if key in arrays:
                return arrays
    return None


def functions(numbers: Numbers, directory: Path) -> list[Figure]:
    """Draws example tasks of regression, one row per mode, and how the predictions adapt."""
    found = []
    for tasks in numbers.scores.sets:
        film, maml = (_first(numbers.scores, m, tasks, "example_x") for m in ("film", "maml"))
        if film is None:
            continue
        if maml and not np.array_equal(maml["example_support_x"], film["example_support_x"]):
            raise SystemExit(
                f"report: the example tasks of maml_{tasks} and film_{tasks} differ; evaluate both "
                "anew."
            )
        name = f"functions_{tasks}.png"
        _functions(film, maml, numbers.scores.modes(tasks), directory / name)
        found.append(_figure("functions", name, tasks))
    return found


def _functions(film, maml, modes, path):
    predictions, mode = film["example_predictions"], film["example_mode"]
    steps = len(predictions) - 1
    ramp = matplotlib.colormaps["Blues"](np.linspace(1.0, 0.32, steps + 1))[::-1]
    rows = [np.flatnonzero(mode == index) for index in range(len(modes))]
    shape, size = (len(rows), max(map(len, rows))), (WIDTH, 2.4 * len(rows) + 0.8)
    with plt.rc_context(SETTINGS):
        fig, axes = plt.subplots(*shape, squeeze=False, sharex=True, figsize=size)
        for row, tasks, name in zip(axes, rows, modes, strict=True):
            for ax, task in zip(row, tasks, strict=False):
                for curve, colour in zip(predictions[:, task], ramp, strict=True):
                    ax.plot(film["example_x"], curve, color=colour, lw=2)
                truth, y = film["example_truth"][task], film["example_support_y"][task, :, 0]
                ax.plot(film["example_x"], truth, color="black", lw=1.4)
                if maml is not None:
                    ax.plot(film["example_x"], maml["example_predictions"][-1, task],
                            color=METHODS["maml"].colour, ls="--", lw=1.8)  # fmt: skip
                ax.plot(film["example_support_x"][task, :, 0], y, "o", color="black", ms=7,
                        mec="white", zorder=4)  # fmt: skip
                ax.set_ylim(*_limits(np.concatenate([truth, y]), predictions[-1, task]))
            row[0].set_ylabel(f"{name}\ny")
        for ax in axes[-1]:
            ax.set_xlabel("x")
        lines = [("truth", Line2D([], [], color="black", lw=1.4)),
                 ("support points", Line2D([], [], color="black", marker="o", ls=""))]  # fmt: skip
        names = ["after modulation", *(f"after step {n}" for n in range(1, steps + 1))]
        lines += [(n, Line2D([], [], color=c, lw=2)) for n, c in zip(names, ramp, strict=True)]
        if maml is not None:
            colour = METHODS["maml"].colour
            lines.append(("MAML, adapted", Line2D([], [], color=colour, ls="--", lw=2)))
        names, handles = zip(*lines, strict=True)
        fig.legend(handles, names, loc="outside lower center", ncols=5)
        save(fig, path)


def _limits(values, prediction):
    """Returns limits that show `values`, and the prediction as far as that allows."""
    middle, half = (values.max() + values.min()) / 2, max(np.ptp(values) / 2, 1.0)
    low = min(middle - half, max(prediction.min(), middle - 2 * half))
    high = max(middle + half, min(prediction.max(), middle + 2 * half))
    margin = 0.1 * (high - low)
    return low - margin, high + margin


def episodes(numbers: Numbers, directory: Path) -> list[Figure]:
    """Draws an example task of image classification of each mode of the largest mode set."""
    scores = numbers.scores
    shown = [tasks for tasks in scores.sets if tasks.endswith("-5w1s")] or scores.sets
    for tasks in sorted(shown, key=lambda tasks: -len(scores.modes(tasks))):
        methods = [method for method, other in numbers.cells if other == tasks]
        kept = [_first(scores, method, tasks, "example_support") for method in methods]
        if arrays := next((found for found in kept if found), None):
            _episodes(arrays, scores.modes(tasks), directory / "episodes.png")
            return [_figure("episodes", "episodes.png")]
    return []


def _episodes(arrays, modes, path):
    """Draws `example_support` `[M, N, H, W, 3]`, `example_query` and `example_labels` `[M, Q]`."""
    support, query = arrays["example_support"], arrays["example_query"]
    ways, queries = support.shape[1], query.shape[1]
    widths = [1] * ways + [0.35] + [1] * queries  # with a gap between the two
    size = WIDTH, WIDTH / sum(widths) * 1.25 * len(modes)
    with plt.rc_context(SETTINGS | {"axes.grid": False}):
        fig, axes = plt.subplots(len(modes), len(widths), squeeze=False, figsize=size,
                                 width_ratios=widths)  # fmt: skip
        for ax in axes.flat:
            ax.axis("off")
        for index, (row, mode) in enumerate(zip(axes, modes, strict=True)):
            titles = [f"class {n + 1}" for n in range(ways)]
            titles += [f"query, {n + 1}" for n in arrays["example_labels"][index]]
            images = [*support[index], *query[index]]
            places = [*row[:ways], *row[ways + 1 :]]
            for ax, image, title in zip(places, images, titles, strict=True):
                ax.imshow(image, interpolation="nearest")
                ax.set_title(title, fontsize=9.5, pad=3)
            row[0].text(-0.12, 0.5, mode, transform=row[0].transAxes, rotation=90, va="center",
                        ha="right")  # fmt: skip
        save(fig, path)


def trajectories(numbers: Numbers, directory: Path) -> list[Figure]:
    """Draws where a point goes before and after each inner step, one row for each method."""
    scores = numbers.scores
    shown = [tasks for tasks in scores.sets if tasks.startswith("point_mass-")]
    for tasks in sorted(shown, key=lambda tasks: abs(len(scores.modes(tasks)) - 4)):
        kept = {m: _first(scores, m, tasks, "example_positions") for m in ("mmaml", "promp")}
        kept = {method: arrays for method, arrays in kept.items() if arrays}
        if kept:
            _trajectories(kept, scores.modes(tasks), directory / "trajectories.png")
            return [_figure("trajectories", "trajectories.png")]
    return []


def _trajectories(kept, modes, path):
    columns = max(len(arrays["example_positions"]) for arrays in kept.values())
    reach = max(np.abs(arrays["examples_goals"]).max() for arrays in kept.values()) + 3.0
    size = WIDTH, WIDTH / columns * len(kept) + 0.6
    with plt.rc_context(SETTINGS):
        fig, axes = plt.subplots(len(kept), columns, squeeze=False, sharex=True, sharey=True,
                                 figsize=size)  # fmt: skip
        for step, ax in enumerate(axes[0]):
            ax.set_title(f"after inner step {step}" if step else "before adaptation")
        for line, (method, arrays) in zip(axes, kept.items(), strict=True):
            line[0].set_ylabel(label(method))
            goals = arrays["examples_goals"]
            each = len(goals) // len(modes)
            for ax, paths in zip(line, arrays["example_positions"], strict=False):
                for task, (way, goal) in enumerate(zip(paths, goals, strict=True)):
                    colour = MODE_STYLE[task // each % len(MODE_STYLE)][0]
                    ax.plot(*way.T, color=colour, lw=1.3, alpha=0.8)
                    ax.plot(*way[-1], "o", color=colour, ms=4)
                    ax.plot(*goal[:2], "*", color=colour, ms=9, mec="black", mew=0.4)
                ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        fig.legend(mode_handles(range(len(modes))), modes, loc="outside lower center", ncols=6)
        save(fig, path)


def frames(numbers: Numbers, directory: Path) -> list[Figure]:
    """Draws rollouts of MMAML in the environments that MuJoCo simulates."""
    from pipelines.report.simulation import CannotDrawError, draw

    found, scores = [], numbers.scores
    for environment in dict.fromkeys(tasks.partition("-")[0] for tasks in scores.sets):
        shown = [tasks for tasks in scores.sets if tasks.startswith(f"{environment}-")]
        shown.sort(key=lambda tasks: abs(len(scores.modes(tasks)) - 4))
        kept = [(t, _first(scores, "mmaml", t, "frames_observations")) for t in shown]
        tasks, arrays = next(((t, a) for t, a in kept if a), (None, None))
        if not tasks:
            continue
        name = f"frames_{environment}.png"
        try:
            images = draw(environment, arrays["frames_observations"], arrays["frames_goals"])
        except CannotDrawError as error:
            print(f"report: no frames of the {environment}: {error}")
            continue
        _frames(images, arrays["frames_times"], scores.modes(tasks), directory / name)
        found.append(_figure("frames", name, environment))
    return found


def _frames(images, times, modes, path):
    """Draws `[2 modes, 2, F, H, W, 3]` images at `times`, of rollouts before and after."""
    rows = images.reshape(-1, *images.shape[2:])
    size = WIDTH, WIDTH / len(times) * len(rows) + 0.4
    with plt.rc_context(SETTINGS | {"axes.grid": False}):
        fig, axes = plt.subplots(len(rows), len(times), squeeze=False, figsize=size)
        for index, (line, strip) in enumerate(zip(axes, rows, strict=True)):
            when = "adapted" if index % 2 else "before"
            line[0].set_ylabel(f"{modes[index // 2]}, {when}")
            for ax, image in zip(line, strip, strict=True):
                ax.imshow(image)
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
        for ax, time in zip(axes[0], times, strict=True):
            ax.set_title(f"step {time}")
        save(fig, path)


def embeddings(numbers: Numbers, directory: Path) -> list[Figure]:
    """Draws maps of task embeddings, and which centroids they are nearest to."""
    scores, method, found = numbers.scores, numbers.scores.domain.method, []
    images = scores.domain.name == "classification"
    shown = [tasks for tasks in scores.sets if not images or tasks.endswith("-5w1s")]
    groups = dict.fromkeys(scores.domain.group(tasks) for tasks in shown)
    for group in groups:
        own = [tasks for tasks in shown if scores.domain.group(tasks) == group]
        kept = {tasks: _first(scores, method, tasks, "map") for tasks in own}
        if not any(kept.values()):
            continue
        end = f"_{group}" if group and not images else ""
        for kind, draw in (("embeddings", _maps), ("confusions", _confusions)):
            draw(scores, kept, directory / f"{kind}{end}.png")
            found.append(
                _figure(kind, f"{kind}{end}.png", "" if images else group, scores.domain.name)
            )
    return found


def _maps(scores, kept, path):
    names = list(dict.fromkeys(mode for tasks in kept for mode in scores.modes(tasks)))
    titles = {scores.domain.set_title(tasks): arrays for tasks, arrays in kept.items()}
    with plt.rc_context(SETTINGS):
        fig, (axes,) = panels({None: titles}, 4.2)
        for ax, (tasks, arrays) in zip(axes, kept.items(), strict=True):
            ax.set(xticks=[], yticks=[])
            if arrays is None:
                note(ax, "no embeddings here")
                continue
            if "silhouette" in arrays:
                ax.set_title(f"{ax.get_title()} (silhouette {arrays['silhouette']:.2f})")
            own, mode = scores.modes(tasks), arrays["map_mode"]
            for index, name in enumerate(own):
                colour, marker = MODE_STYLE[names.index(name) % len(MODE_STYLE)]
                ax.scatter(*arrays["map"][mode == index].T, s=np.clip(5000 / len(mode), 10, 35),
                           color=colour, marker=marker, alpha=0.65, linewidths=0)  # fmt: skip
        fig.legend(mode_handles(range(len(names))), names, loc="outside lower center", ncols=8)
        save(fig, path)


def _confusions(scores, kept, path):
    titles = {}
    for tasks, arrays in kept.items():
        title = scores.domain.set_title(tasks)
        if arrays is not None:
            share = accuracy(arrays["confusion"])
            title += f" ({share:.0%}, chance {1 / len(scores.modes(tasks)):.0%})"
        titles[title] = arrays
    with plt.rc_context(SETTINGS | {"axes.grid": False}):
        fig, (axes,) = panels({None: titles}, 3.6)
        for ax, (tasks, arrays) in zip(axes, kept.items(), strict=True):
            ax.set(xticks=[], yticks=[])
            if arrays is None:
                note(ax, "no embeddings here")
                continue
            modes, counts = scores.modes(tasks), arrays["confusion"]
            shares = 100 * counts / counts.sum(axis=1, keepdims=True)
            ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
            for (row, column), share in np.ndenumerate(shares):
                colour = "white" if share > 55 else "black"
                ax.text(column, row, f"{share:.0f}", color=colour, ha="center", va="center")
            ax.set_xticks(range(len(modes)), modes, rotation=30, ha="right")
            ax.set_yticks(range(len(modes)), modes)
            ax.set_xlabel("nearest centroid")
        axes[0].set_ylabel("true mode")
        save(fig, path)


def accuracy(confusion: np.ndarray) -> float:
    """Returns the share of embeddings whose mode the nearest centroid tells."""
    return float(confusion.trace() / confusion.sum())


#: what each domain draws beside the pictures of figures.py
PICTURES = {
    "regression": (functions, embeddings),
    "classification": (episodes, embeddings),
    "reinforcement": (trajectories, frames, embeddings),
}
