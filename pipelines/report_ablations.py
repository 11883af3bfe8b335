"""How the reports show variants of cells, which tell why a cell's result is what it is."""

from collections.abc import Callable, Sequence

from pipelines.report_inputs import Ablation
from pipelines.report_page import Section, Table


def table(
    ablations: Sequence[Ablation],
    measure: str | None,
    text: Callable[..., str],
) -> Table:
    """Returns a row for each variant, beside its cell.

    Args:
        ablations: the variants.
        measure: what is compared; None where a report has one measure.
        text: returns an estimate as text, and takes the `sign` that a difference has.
    """
    header = ["variant", "of", "differs in", "variant's", "cell's", "difference", "skipped updates"]
    rows = []
    for name, reference, changes, run, of_cell in ablations:
        difference = run.report.difference(of_cell.report, measure=measure)
        estimates = [r.report.estimate(measure=measure) for r in (run, of_cell)]
        texts = [*map(text, estimates), text(difference, sign="+")]
        rows.append([name, reference, changes, *texts, f"{run.skipped} ({of_cell.skipped})"])
    return Table(header, rows)


def sections(shown: Table, caption: str) -> list[Section]:
    """Returns the page's section of a table of variants; none where it has no row."""
    return [Section("Ablations", shown.html(caption))] if shown.rows else []


def markdown(shown: Table, caption: str) -> list[str]:
    """Returns a table of variants and its caption in Markdown; nothing where it has no row."""
    return [f"{caption}.\n", shown.markdown()] if shown.rows else []


def summary(ablations: Sequence[Ablation], measure: str | None) -> dict:
    """Returns what summary.json has of the variants, by variant and the cell it differs from."""
    found = {}
    for name, reference, changes, run, of_cell in ablations:
        difference = run.report.difference(of_cell.report, measure=measure)
        found.setdefault(f"{name}-{run.seed}", {})[reference] = {
            "differs_in": changes,
            "difference": difference._asdict(),
        }
    return found
