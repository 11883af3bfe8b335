"""What the classification report says about its numbers."""

from pipelines import published
from pipelines.published import METHODS
from pipelines.report_images_data import Results
from pipelines.report_texts import (
    NOT_RUN,
    alternatives,
    digests_note,
    seeds_text,
    spread_note,
    title,
)

# Markers of the headline table, and whether a cell has them.
_FEWER_WAYS, _SKIPPED, _OTHER_MODES = "¹", "²", "³"

_STATISTICS = {
    "query": "The normalisation takes the statistics of the images it is given, in testing those "
    "of all query images of a task together (transductive, as published), in all methods.",
    "support": "The normalisation of query images takes the statistics of the support images (the "
    "published one is transductive: it takes those of all query images of a task together).",
}


def markers(results: Results, kind: str, mode_set: str, protocol: str) -> str:
    """Returns the marks of a cell that some note under the table is about."""
    cell = results.cells.get((kind, mode_set, protocol))
    if not (cell and cell.runs):
        return ""
    marks = {
        _FEWER_WAYS: _fewer_ways(results, mode_set, protocol),
        _SKIPPED: cell.skipped,
        _OTHER_MODES: not results.mode_sets[mode_set].as_published,
    }
    return "".join(mark for mark, applies in marks.items() if applies)


def _fewer_ways(results, mode_set, protocol):
    asked = results.protocols[protocol][0]
    return {m: n for m, n in results.ways(mode_set, protocol).items() if n < asked}


def table_notes(results: Results) -> list[str]:
    """Returns the notes under the headline table."""
    return [
        "Accuracy on the query images of test classes in %, after the inner steps; over a mode "
        "set, the unweighted mean of its modes' means.",
        spread_note(results.seeds),
        *_ways_note(results),
        *_skipped_note(results),
        *_modes_notes(results),
        *_images_note(results),
        *_not_run_note(results),
    ]


def _ways_note(results):
    fewer = {}
    for mode_set in results.mode_sets:
        for protocol in results.protocols:
            for mode, ways in _fewer_ways(results, mode_set, protocol).items():
                fewer[mode, protocol] = f"{mode} in {protocol}: {ways} ways"
    if fewer:
        yield (
            f"{_FEWER_WAYS} Test splits with fewer classes than a task asks for have tasks of all "
            f"their classes, which are easier: {'; '.join(fewer.values())}."
        )


def _skipped_note(results):
    skipped = []
    for cell in results.cells.values():
        if cell.skipped:
            updates = len(cell.trained) * sum(run.iterations for run in cell.runs)
            name = f"{METHODS[cell.kind].label}, {title(cell.mode_set)}, {cell.protocol}"
            skipped.append(f"{name}: {cell.skipped} of {updates}")
    if skipped:
        yield (
            f"{_SKIPPED} Outer updates were skipped because their meta-gradient was not finite: "
            f"{'; '.join(skipped)}."
        )
    elif any(cell.runs for cell in results.cells.values()):
        yield "No outer update was skipped."


def _modes_notes(results):
    for name, mode_set in results.mode_sets.items():
        text = f"{title(name)}: {', '.join(mode_set.modes) or 'none has images'}."
        stand_ins = [f"{own} stands in for {theirs}" for theirs, own in mode_set.stand_ins.items()]
        left_out = [f"{mode} is left out" for mode in mode_set.left_out]
        if stand_ins or left_out:
            text += (
                f" {_OTHER_MODES} Not as published: {'; '.join(stand_ins + left_out)}. Its images "
                "were not there; the published numbers beside it are of other tasks."
            )
        yield text


def _images_note(results):
    texts = []
    for mode, count in results.images.items():
        theirs = published.IMAGES.get(mode, count)
        texts.append(f"{mode} {count}" + (f" (published: {theirs})" if theirs != count else ""))
    if texts:
        yield f"Images of all classes: {', '.join(texts)}."
    altered = [f"{mode} ({', '.join(files)})" for mode, files in results.altered.items()]
    if altered:
        yield (
            "Files that are not the published ones, by their checksums, and may hold other images: "
            f"{'; '.join(altered)}."
        )


def _not_run_note(results):
    count = sum(not cell.runs for cell in results.cells.values())
    if count:
        yield f"{count} of {len(results.cells)} cells are “{NOT_RUN}”; summary.json names them."


def protocol_notes(results: Results) -> list[str]:
    """Returns what was done, in short."""
    schedule = results.schedule
    runs = [run for cell in results.cells.values() for run in cell.runs]
    tasks = alternatives({sum(run.report.mode == 0) for run in runs})
    return [
        f"Scale “{results.scale}”: images of {schedule['image_size']} pixels, filters "
        f"{', '.join(map(str, schedule['filters']))}, embedding of {schedule['embedding']}; "
        f"{seeds_text(results.seeds)}.",
        f"Training: {_training(results)}. Query images of a class: {schedule['queries']}.",
        f"Inner steps: {results.defaults['inner_steps']} in training and for the accuracy here"
        f"{_member_steps(results)}. A prototypical network has none.",
        _rates(results.defaults),
        f"The checkpoint is the one with the best accuracy on {schedule['validation_tasks']} tasks "
        f"per mode of the validation classes, measured every {schedule['validation_every']} "
        f"iterations.{_chosen(results)}",
        f"Test: the same {tasks or 'held-out'} tasks per mode for all methods, of the test "
        "classes, which training never sees. The tasks of a mode are the same in every mode set.",
        _STATISTICS[results.defaults["statistics"]],
        "Multi-MAML has one MAML per mode, trained alone and chosen by the true mode of a task.",
        digests_note(results.digests),
    ]


def _rates(defaults):
    def clipped(how, limit):
        return f"clipped to {how} of {limit}" if limit else "not clipped"

    return (
        f"Rates, unless a method or member has its own: inner {defaults['inner_learning_rate']}, "
        f"its gradient {clipped('elements', defaults['inner_clip'])}; outer "
        f"{defaults['outer_learning_rate']} (Adam), its gradient "
        f"{clipped('a norm', defaults['outer_clip'])}."
    )


def _training(results):
    texts = []
    for protocol in results.protocols:
        iterations = {
            of_members: alternatives(
                {
                    run.iterations
                    for cell in results.cells.values()
                    if cell.protocol == protocol and bool(cell.members) == of_members
                    for run in cell.runs
                }
            )
            for of_members in (False, True)
        }
        text = f"{protocol} {NOT_RUN}"
        if iterations[False]:
            batch = results.schedule["batch"][protocol]
            text = f"{protocol} {iterations[False]} iterations of {batch} tasks"
        if iterations[True]:
            batches = alternatives(results.member_batches[protocol])
            text += f" ({iterations[True]} of {batches} for each member of Multi-MAML)"
        texts.append(text)
    return "; ".join(texts)


def _member_steps(results):
    other = {
        f"{steps} for {mode} in {cell.protocol}": None
        for cell in results.cells.values()
        if cell.members
        for run in cell.runs
        for mode, steps in run.steps.items()
        if steps != results.defaults["inner_steps"]
    }
    return f" (in Multi-MAML {', '.join(other)})" if other else ""


def _chosen(results):
    chosen = [step for c in results.cells.values() for run in c.runs for step in run.chosen]
    if not chosen:
        return ""
    return f" Those chosen are of iterations {min(chosen)} to {max(chosen)}; summary.json has each."


def deviation_notes(results: Results) -> list[str]:
    """Returns what differs from the published protocol, or may differ."""
    return [
        published.SOURCE,
        published.CLASSIFICATION_PROTOCOL,
        published.CLASSIFICATION_UNKNOWN,
        *published.CLASSIFICATION_DIFFERENCES,
        *_settings_note(results),
        "Prototypical networks have no published values here.",
    ]


def _settings_note(results):
    theirs = published.CLASSIFICATION_SETTINGS
    texts = [
        f"{name} {results.defaults[name]} (published: {value})"
        for name, value in theirs.items()
        if results.defaults[name] != value
    ]
    texts += [f"the split {split!r} of {dataset}" for dataset, split in results.splits.items()]
    if texts:
        yield f"Settings other than the published ones: {', '.join(texts)}."
