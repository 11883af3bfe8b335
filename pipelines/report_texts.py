"""What the texts and tables of all reports have in common."""

from collections.abc import Iterable, Mapping

from pipelines.report_data import Summary

REFERENCES = ("maml", "film")
DIFFERENCE = ("seed", "mean", "ci95", "n", "sd_over_seeds")  # the columns of `difference_rows`
DASH, NOT_RUN = "–", "not run"
#: of a cell that was evaluated where its arrays are
NOT_HERE = "the arrays of its evaluation are not here"


def title(size: int | str) -> str:
    """Returns what tables and pictures call a mode set: the published ones after their size."""
    return f"{size} modes" if str(size).isdecimal() else str(size)


def when(steps: int) -> str:
    """Returns the name of the time after some inner steps."""
    if steps == 0:
        return "before adaptation"
    return f"after {steps} inner step{'s' if steps > 1 else ''}"


def number(value: float | None) -> str:
    """Returns a number as it stands in the files."""
    return "" if value is None else f"{value:.6g}"


def difference_rows(estimates: dict) -> list[list]:
    """Returns the rows of differences.csv for paired estimates by seed."""
    rows = [[seed, number(e.mean), number(e.ci95), e.n, ""] for seed, e in estimates.items()]
    if len(rows) > 1:
        value = Summary.of([*estimates.values()])
        rows.append(["all", number(value.mean), "", value.tasks, number(value.spread)])
    return rows


def seeds_note(value: Summary, seeds: list[int]) -> str:
    """Returns what is added to a value that not all seeds have."""
    if value.seeds == len(seeds):
        return ""
    return f" ({value.seeds} seed{'s' if value.seeds > 1 else ''})"


def spread_note(seeds: list[int], also: str = "") -> str:
    """Returns what stands behind ±.

    Args:
        seeds: the seeds.
        also: what has an interval over tasks even where there are several seeds.
    """
    interval = "95 % confidence interval (Student's t) over held-out tasks"
    if len(seeds) == 1:
        return f"Values are mean ± half-width of the {interval}, for 1 seed ({seeds[0]})."
    return (
        f"Values are mean ± standard deviation over {len(seeds)} seeds "
        f"({', '.join(map(str, seeds))}), except where a row states another number of seeds; a "
        f"single seed{also} has mean ± half-width of the {interval}."
    )


def listed(notes: list[str]) -> str:
    """Returns notes as a list in Markdown."""
    return "\n".join(f"- {note}" for note in notes) + "\n"


def alternatives(values: Iterable) -> str:
    """Returns the values that there are, in order."""
    return " or ".join(map(str, sorted(values)))


def seeds_text(seeds: list[int]) -> str:
    """Returns which seeds there are."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def digests_note(digests: Mapping[str, str]) -> str:
    """Returns the note about the digests of the held-out tasks by their names."""
    shown = "; ".join(f"{name}: {digest[:16]}" for name, digest in digests.items()) or NOT_RUN
    return (
        f"SHA-256 digests of the held-out tasks, first 16 digits: {shown}. Whole in summary.json."
    )
