"""Stage `page`: joins the domains' sections into one page that needs no other file.

A domain writes `results/<scale>/<domain>/section.html` with `write_domain`; its pictures stay
files beside it, named relative to it, and are embedded when the page is put together. The figure
of the task embeddings of all domains is a part of its own, which this stage writes.
"""

import argparse
import base64
import csv
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines import embeddings_figure
from pipelines import params as parameters
from pipelines.report_texts import DIFFERENCE

# Domains in the order of the page; others follow in alphabetical order.
_ORDER = ("regression", "classification", "reinforcement", "embeddings")
# What a tracked run keeps of each.
_TRACKED = ("table.md", "table.csv", "differences.csv", "summary.json", "plots")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 1180px; padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; } h2 { font-size: 1.5rem; margin-top: 3rem; }
h3 { font-size: 1.15rem; margin-top: 2.2rem; }
p, li { max-width: 75ch; }
code { font-size: 0.85em; overflow-wrap: anywhere; }
nav ul { columns: 2; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.4rem; color: #444; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid #ddd; text-align: right;
  white-space: nowrap; }
thead th { border-bottom: 2px solid #555; vertical-align: bottom; }
thead th.group { text-align: center; border-bottom: 1px solid #999; }
th:first-child { text-align: left; }
tbody th { font-weight: normal; }
.first { border-left: 1px solid #bbb; }
td.quiet { color: #666; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { max-width: 85ch; font-size: 0.9rem; color: #333; }
"""

# As `figure` writes them.
_PICTURE = re.compile(r'<img src="([^"]*)"')
_FIGURE = re.compile(r'<figure><img src="([^"]*)".*?</figure>\n', re.DOTALL)
_EARLIER = (
    "This report could not draw these; an earlier one did, perhaps of other trainings than the "
    "tables have."
)


class Section(NamedTuple):
    """One section of a page.

    Attributes:
        title: its heading, as text.
        body: its content, as HTML.
    """

    title: str
    body: str


class Table(NamedTuple):
    """A table of texts that prints as Markdown or HTML.

    Attributes:
        header: column titles; the first column names the rows.
        rows: cells.
        groups: (title, number of columns) pairs over the columns after the first, or empty.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    groups: Sequence[tuple[str, int]] = ()

    def markdown(self) -> str:
        """Returns the table in Markdown, with each group's title in its columns' titles."""
        titles = [title for title, width in self.groups for _ in range(width)]
        header = [self.header[0]]
        for index, name in enumerate(self.header[1:]):
            header.append(f"{titles[index]}: {name}" if titles else name)
        align = [":--", *["--:"] * (len(header) - 1)]
        lines = [header, align, *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def html(self, caption: str = "") -> str:
        """Returns the table in HTML."""
        starts = self._group_starts()
        head = "".join(
            f'<th scope="col"{_class(i in starts and "first")}>{html.escape(name)}</th>'
            for i, name in enumerate(self.header)
        )
        groups = "".join(
            f'<th scope="colgroup" colspan="{width}" class="group first">{html.escape(title)}</th>'
            for title, width in self.groups
        )
        head = (f"<tr><td></td>{groups}</tr>\n" if groups else "") + f"<tr>{head}</tr>"
        body = "\n".join(self._html_row(row, starts) for row in self.rows)
        caption = f"<caption>{html.escape(caption)}</caption>\n" if caption else ""
        return (
            f'<div class="scroll"><table>\n{caption}<thead>\n{head}\n</thead>\n'
            f"<tbody>\n{body}\n</tbody>\n</table></div>\n"
        )

    def _group_starts(self):
        starts, column = set(), 1
        for _, width in self.groups:
            starts.add(column)
            column += width
        return starts

    def _html_row(self, row, starts):
        cells = [f'<th scope="row">{html.escape(row[0])}</th>']
        for i, cell in enumerate(row[1:], start=1):
            published = self.header[i] == "published" or row[0].endswith(", published")
            quiet = published or cell in ("–", "not run")
            names = _class(i in starts and "first", quiet and "quiet")
            cells.append(f"<td{names}>{html.escape(cell)}</td>")
        return f"<tr>{''.join(cells)}</tr>"


def paragraph(text: str) -> str:
    """Returns a paragraph of HTML with `text` escaped."""
    return f"<p>{html.escape(text)}</p>\n"


def bullets(items: Sequence[str]) -> str:
    """Returns a list in HTML with its items' texts escaped."""
    lines = "\n".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f"<ul>\n{lines}\n</ul>\n"


def figure(picture: str, caption: str) -> str:
    """Returns a figure in HTML; `picture` is a path relative to the section's file."""
    text = html.escape(caption)
    return (
        f'<figure><img src="{html.escape(picture)}" alt="{text}">\n'
        f"<figcaption>{text}</figcaption></figure>\n"
    )


def write_domain(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Writes one domain's part of the page, and removes pictures that it does not show.

    What an earlier report shows and this one does not stays, under a heading that says so: the
    arrays of embeddings and rollouts are in DVC's cache, of which another machine has none. A
    picture that is drawn again, if with fewer panels, replaces the earlier one. A stage of DVC
    begins without an earlier report, and so does one by hand where section.html is deleted.

    Args:
        path: `results/<scale>/<domain>/section.html`, beside whose pictures are in `plots`.
        title: the domain's heading.
        sections: its sections in order.
    """
    domain = path.parent.name
    earlier = _earlier_figures(path, _pictures(section.body for section in sections))
    if earlier:
        body = paragraph(_EARLIER) + "".join(earlier)
        sections = [*sections, Section("Pictures of an earlier report", body)]
    parts = [f'<article id="{domain}">\n<h2>{html.escape(title)}</h2>\n']
    for number, section in enumerate(sections, start=1):
        heading = html.escape(section.title)
        parts.append(f'<h3 id="{domain}-{number}">{heading}</h3>\n{section.body}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join([*parts, "</article>\n"]))
    shown = _pictures(parts)
    for picture in (path.parent / "plots").glob("*.png"):
        if f"plots/{picture.name}" not in shown:
            picture.unlink()


def _earlier_figures(path, shown):
    """Returns the figures of an earlier report whose pictures are there, but for those `shown`."""
    text = path.read_text() if path.is_file() else ""
    figures = {html.unescape(match[1]): match[0] for match in _FIGURE.finditer(text)}
    kept = [name for name in figures if name not in shown and (path.parent / name).is_file()]
    return [figures[name] for name in kept]


def _pictures(bodies):
    """Returns the names of the pictures that texts of HTML show."""
    return {html.unescape(name) for body in bodies for name in _PICTURE.findall(body)}


def assemble(directory: Path) -> str:
    """Returns the page that joins the sections under `results/<scale>`.

    Raises:
        SystemExit: when there is no section, or a picture is missing or not a local file.
    """
    found = _sections(directory)
    order = [d for d in _ORDER if d in found] + sorted(set(found) - set(_ORDER))
    articles = [_embed_pictures(found[domain]) for domain in order]
    title = f"Multimodal meta-learning: results at {directory.name} scale"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{_contents(articles)}{''.join(articles)}</body>\n</html>\n"
    )


def _sections(directory):
    """Returns the sections' files by domain."""
    found = {path.parent.name: path for path in directory.glob("*/section.html")}
    if not set(found) - {"embeddings"}:  # that is written with the page
        raise SystemExit(f"report: no {directory}/<domain>/section.html; run a domain's report.")
    return found


def _contents(articles):
    pattern = re.compile(
        r'<article id="(?P<id>[^"]+)">\n<h2>(?P<title>.*?)</h2>|<h3 id="([^"]+)">(.*?)</h3>'
    )
    lines = []
    for article in articles:
        for match in pattern.finditer(article):
            anchor, title = (text for text in match.groups() if text is not None)
            strong = match["id"] is not None
            title = f"<strong>{title}</strong>" if strong else title
            lines.append(f'<li><a href="#{anchor}">{title}</a></li>\n')
    return f"<nav><ul>\n{''.join(lines)}</ul></nav>\n"


def _embed_pictures(path):
    def embed(match):
        source = html.unescape(match[1])
        picture = path.parent / source
        if ":" in source or source.startswith("/") or not picture.is_file():
            raise SystemExit(
                f"report: {path} shows {source!r}, which is no file beside it; run the domain's "
                "report again."
            )
        data = base64.b64encode(picture.read_bytes()).decode()
        return f'<img src="data:image/png;base64,{data}"'

    return _PICTURE.sub(embed, path.read_text())


def _class(*names):
    names = " ".join(name for name in names if name)
    return f' class="{names}"' if names else ""


def _write_embeddings(scale, directory):
    """Writes the part of the page that is of all domains."""
    picture = directory / "plots" / "embeddings.png"
    drawn, notes = embeddings_figure.draw(scale, parameters.load()["seeds"], picture)
    body = bullets(notes)
    if drawn:
        body = figure("plots/embeddings.png", embeddings_figure.CAPTION) + body
    write_domain(directory / "section.html", "Task embeddings", [Section("All domains", body)])


def _track(directory):
    """Keeps the page and its tables, pictures and paired differences in one tracked run."""
    from mmaml_tf.tracking import Tracker

    experiment = f"report-{directory.name}"
    with Tracker(experiment, run_name="report", key="report") as tracker:
        tracker.log_artifact(directory / "report.html")
        for domain in _sections(directory):
            for name in _TRACKED:
                path = directory / domain / name
                if path.exists():
                    tracker.log_artifact(path, domain)
            tracker.log_summary({domain: _differences(directory / domain / "differences.csv")})


def _differences(path):
    """Returns mean and interval of each paired difference over all modes."""
    found = {}
    if path.exists():
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["mode"] == "all"]
        for row in rows:
            others = set(row) - {"method", "reference", "mode", *DIFFERENCE}
            where = "-".join(value for name, value in row.items() if name in others)
            name = f"{row['method']} minus {row['reference']} {where} seed {row['seed']}"
            found[name] = {key: float(row[key]) for key in ("mean", "ci95") if row[key]}
    return found


def main() -> None:
    """Writes the page of the scale that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", required=True, choices=parameters.SCALES)
    scale = parser.parse_args().scale
    directory = Path("results", scale)
    _sections(directory)  # of a domain, or there is no page
    _write_embeddings(scale, directory / "embeddings")
    page = assemble(directory)
    (directory / "report.html").write_text(page)
    _track(directory)
    print(directory / "report.html")


if __name__ == "__main__":
    main()
