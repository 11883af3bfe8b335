"""The facts that the remarks of a report state, and on which they depend."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jinja2
import numpy as np
import yaml

from pipelines import params as parameters
from pipelines.report.domains import METHODS, label
from pipelines.report.frame import Scores

_HERE = Path(__file__).parent
_NAMED = 24  # so many cells that were not run are named
PLACES = ("protocol", "table", "deviations")
_ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined)


def published_protocol(domain: str) -> dict:
    """Returns what is known of how the published values of a domain were obtained."""
    return yaml.safe_load((_HERE / "published/protocol.yaml").read_text())[domain]


def remarks(facts: Mapping, domain: str) -> dict[str, list[str]]:
    """Returns by place the remarks of a domain whose conditions hold."""
    found = {place: [] for place in PLACES}
    for remark in yaml.safe_load((_HERE / "remarks.yaml").read_text()):
        if remark["domain"] not in (domain, "any"):
            continue
        when = _ENVIRONMENT.compile_expression(remark.get("when", "true"))
        if when(**facts):
            text = _ENVIRONMENT.from_string(remark["text"]).render(**facts)
            found[remark["at"]].append(" ".join(text.split()))
    return found


def collect(scores: Scores, params: dict) -> dict:
    """Returns the facts of a domain's results."""
    domain, runs = scores.domain, scores.runs
    shown = {key: run for key, run in runs.items() if key[0] in METHODS}
    published = published_protocol(domain.name)
    seeds, missing = scores.seeds, not_run(scores, params)
    facts = {
        "has": lambda found, *names: bool(set(found) & set(names)),
        "scale": scores.scale,
        "better": domain.better,
        "methods": set(scores.methods),
        "sets": set(scores.sets),
        "modes": {mode for run in shown.values() for mode in run.modes},
        "seeds": seeds,
        "seeds_text": f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        "joined": any(len(run.names) > 1 for run in shown.values()),
        "published": published,
        "trained": partial(_trained, scores, published["iterations"]),
        "digests": [f"{name}: {digest[:16]}" for name, digest in digests(scores).items()],
        "skipped": _skipped(scores, shown),
        "not_run": missing if len(missing) <= _NAMED else [],
        "not_run_count": len(missing),
    }
    return facts | _OWN[domain.name](scores, params, facts)


def digests(scores: Scores) -> dict[str, str]:
    """Returns the digest of the held-out tasks by set."""
    found = {
        tasks: run.metrics["held_out_digest"]
        for (method, tasks, _), run in scores.runs.items()
        if method in METHODS and run.metrics.get("held_out_digest")
    }
    return {tasks: found[tasks] for tasks in scores.sets if tasks in found}


def not_run(scores: Scores, params: dict) -> list[str]:
    """Returns the names of the cells of params.yaml that have no run."""
    ran = {(method, tasks) for method, tasks, _ in scores.runs}
    cells = [cell for cell in scores.domain.cells(params) if cell not in ran]
    return [scores.domain.run_name(*cell) for cell in cells]


def skipped_updates(scores: Scores, run) -> int:
    """Returns the updates left out in training, which a bank's own evaluation does not know."""
    members = [scores.history(f"single_{mode}-{run.metrics['seed']}") for mode in run.modes] if (
        run.metrics.get("cell", "").startswith("multi_maml_")
    ) else []  # fmt: skip
    known = [int(history["skipped"].iloc[-1]) for history in members if history is not None]
    return run.metrics.get("skipped_updates", 0) + sum(known)


def _skipped(scores, shown):
    counts, updates = {}, {}
    for (method, tasks, _), run in shown.items():
        key, members = (method, tasks), len(run.names)
        if method == "multi_maml" and scores.domain.name == "regression":
            members = len(run.modes)
        counts[key] = counts.get(key, 0) + skipped_updates(scores, run)
        updates[key] = updates.get(key, 0) + members * run.metrics.get("iterations", 0)
    return [
        f"{label(method)}, {scores.domain.set_title(tasks)}: {count} of {updates[method, tasks]}"
        for (method, tasks), count in counts.items()
        if count
    ]


def _trained(scores, published):
    """Returns how long was trained; where it differs, by what tells the sets beside their modes."""
    of_group = {}
    for (method, tasks, _), run in scores.runs.items():
        if method in METHODS and "iterations" in run.metrics:
            alone, joined = of_group.setdefault(scores.domain.group(tasks), (set(), set()))
            steps = run.metrics.get("environment_steps", 0)
            members = len(run.names) if len(run.names) > 1 else 1
            amount = run.metrics["iterations"], steps // members
            (joined if members > 1 else alone).add(amount)
    texts = []
    for group, (alone, joined) in of_group.items():
        own = _amounts(alone or joined)
        if joined - alone and alone:
            own += f" ({_amounts(joined)} for each member)"
        if group:
            own = f"{group.replace('_', ' ')} {own} iterations (published: {published[group]})"
        texts.append(own)
    return "; ".join(texts) or "no"


def _amounts(amounts):
    return " or ".join(
        f"{count:,}" + (f" ({steps / 1e6:.3g} million environment steps)" if steps else "")
        for count, steps in sorted(amounts)
    )


def _regression(scores, params, facts):
    del facts
    held_out = json.loads((scores.directory / "held_out.json").read_text())
    held_out["distribution"].setdefault("queries", None)
    effective = []
    for tasks in scores.sets:
        for run in scores.of("bayes", tasks).values():
            median, low = np.percentile(run.metrics["effective"], [50, 5])
            effective.append(f"{tasks} modes: {median:.0f} and {low:.1f}")
    return {
        "held_out": held_out,
        "noise_floor": held_out["distribution"]["noise"] ** 2,
        "inner_steps": parameters.get(params, "regression.defaults.inner_steps"),
        "effective": "; ".join(effective),
    }


def _classification(scores, params, facts):
    defaults = parameters.get(params, "classification.defaults")
    wanted = parameters.get(params, "classification.mode_sets")
    stand_ins = parameters.get(params, "classification.stand_ins")
    protocols = parameters.get(params, "classification.protocols")
    published, fewer, steps, other = facts["published"], {}, {}, []
    shown = dict.fromkeys(scores.domain.group(tasks) for tasks in scores.sets)
    for (method, tasks, _), run in scores.runs.items():
        if method not in METHODS:
            continue
        protocol = scores.domain.group(tasks)
        for mode, ways in run.metrics.get("ways", {}).items():
            if ways < protocols[protocol]["ways"]:
                fewer[f"{mode} in {protocol}: {ways} ways"] = None
        if len(run.names) > 1:
            for mode, own in run.steps.items():
                if own != defaults["inner_steps"]:
                    steps[f"{own} for {mode} in {protocol}"] = None
    for name in dict.fromkeys(scores.domain.values(tasks)["modes"] for tasks in scores.sets):
        tasks = next(t for t in scores.sets if t.startswith(f"{name}-"))
        have = scores.modes(tasks)
        for mode in [mode for mode in wanted.get(name, ()) if mode not in have]:
            own = stand_ins.get(mode)
            how = f"{own} stands in for {mode}" if own in have else f"{mode} is left out"
            other.append(f"{name} modes: {how}")
    differing = [
        f"{name} {defaults[name]} (published: {value})"
        for name, value in published["settings"].items()
        if defaults[name] != value
    ]
    splits = parameters.get(params, "classification.splits").items()
    differing += [f"the split {split!r} of {dataset}" for dataset, split in splits]
    joined = any(len(run.names) > 1 for run in scores.runs.values())
    images, altered = _images(scores, published["images"])
    return {
        "defaults": defaults,
        "schedule": parameters.classification_scale(params, scores.scale),
        "fewer_ways": [*fewer],
        "batches": [_batches(scores, params, name, joined) for name in shown],
        "member_steps": f" (in Multi-MAML {', '.join(steps)})" if steps else "",
        "other_modes": other,
        "other_settings": differing,
        "images": images,
        "altered": altered,
        "chosen": [step for steps in chosen(scores).values() for step in steps],
        "tasks_per_mode": tasks_per_mode(scores.runs.values()),
        "clipped": lambda how, limit: f"clipped to {how} of {limit}" if limit else "not clipped",
    }


def _batches(scores, params, protocol, joined):
    """Returns the tasks of a training batch, and those of the members of a joined method."""
    text = f"{protocol} {parameters.classification_scale(params, scores.scale)['batch'][protocol]}"
    members = parameters.get(params, "classification.trained.members") if joined else []
    names = [f"single-{member}-{protocol}" for member in members]
    own = {parameters.classification_cell(params, name)["batch"] for name in names}
    return text + (f" ({' or '.join(map(str, sorted(own)))} for each member)" if own else "")


def _images(scores, published):
    """Returns what data.json has of the images of each mode."""
    path = scores.directory / "data.json"
    data = json.loads(path.read_text()) if path.is_file() else {}
    counts, altered = [], []
    for mode, found in data.items():
        theirs = published.get(mode, found["images"])
        other = f" (published: {theirs})" if theirs != found["images"] else ""
        counts.append(f"{mode} {found['images']}{other}")
        if found.get("not_as_published"):
            altered.append(f"{mode} ({', '.join(found['not_as_published'])})")
    return counts, altered


def chosen(scores: Scores) -> dict[str, list[int]]:
    """Returns by run the iterations whose weights validation chose: the first of the best."""
    found = {}
    for (method, tasks, seed), run in scores.runs.items():
        histories = [scores.history(name) for name in run.names]
        if method in METHODS and all(h is not None and "validation_score" in h for h in histories):
            best = [h["step"][h["validation_score"].idxmax()] for h in histories]
            found[f"{scores.domain.run_name(method, tasks)}-{seed}"] = [int(step) for step in best]
    return found


def tasks_per_mode(runs) -> str:
    """Returns the numbers of held-out tasks of a mode."""
    counts = {count for run in runs for count, *_ in run.tasks.values()}
    return " or ".join(map(str, sorted(counts)))


def _reinforcement(scores, params, facts):
    environments = dict.fromkeys(tasks.partition("-")[0] for tasks in scores.sets)
    schedule = parameters.reinforcement_scale(params, scores.scale)
    theirs, evaluated, steps, unstable = facts["published"], [], [], []
    for name in environments:
        own = {k: r for k, r in scores.runs.items() if k[0] in METHODS and k[1].startswith(name)}
        rollouts = {run.metrics["rollouts"] for run in own.values()}
        title = name.replace("_", " ")
        evaluated.append(
            f"{title}: {tasks_per_mode(own.values())} goals of each mode with "
            f"{' or '.join(map(str, sorted(rollouts)))} rollouts each"
        )
        steps.append(f"{max(max(run.steps.values()) for run in own.values())} ({title})")
        for (method, tasks, _), run in own.items():
            if count := run.metrics["unstable_rollouts"]:
                whole = sum(n for n, *_ in run.tasks.values()) * len(run.curve)
                whole *= run.metrics["rollouts"]
                unstable.append(
                    f"{label(method)}, {scores.domain.set_title(tasks)}: {count} of {whole}"
                )
    rates = schedule["outer_learning_rate"]
    return {
        "environments": set(environments),
        "schedule": schedule,
        "evaluated": "; ".join(evaluated),
        "policy_steps": ", ".join(steps),
        "unstable": unstable,
        "other_rates": [
            f"{rates[name]:g} for the {name.replace('_', ' ')} (published: {rate:g})"
            for name, rate in theirs["outer_learning_rate"].items()
            if name in environments and rates[name] != rate
        ],
    }


_OWN = {
    "regression": _regression,
    "classification": _classification,
    "reinforcement": _reinforcement,
}
