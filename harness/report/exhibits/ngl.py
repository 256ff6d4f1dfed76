"""*Next Generation Loss* (Akhmedova and Körber, 2024): its table of losses over data sets, beside our own."""

from __future__ import annotations

import csv
from dataclasses import replace

from harness.analysis.cells import Analysis, Cell, class_count
from harness.analysis.frames import column, where
from harness.paths import ROOT
from harness.report.items import Column, Entry, Prose, Row, Section, Table
from harness.report.sections.common import cell_filters, dash, interval_entry, loss_filters, simultaneous
from harness.selection import Choice
from harness.text import number

PRINTED = ROOT / "results" / "published" / "ngl_table.csv"
LOSSES = ("symmetric_cross_entropy", "focal", "ngl")
SAME = 0.5  # points: the paper calls a change this small the same


def section(a: Analysis) -> Section:
    """Return the printed differences from cross-entropy beside ours, data set by data set."""
    intro = (
        "The table of Akhmedova and Körber (2024) gives the accuracy of cross-entropy and the differences of other "
        f"losses from it, over seven data sets, and calls a change within ±{SAME} points the same. It averages "
        "InceptionV3 and ResNet50, trained from scratch five times each; it prints no spread. Our models are far "
        "smaller and see fewer images for fewer epochs, the learning rate is chosen for each loss alike, and "
        "intervals are over seeds: the difference in protocol is large, so compare directions, not sizes.",
        "The words same, more and less apply the paper's rule to a mean; the mark is our verdict, which asks whether "
        "that mean could be chance.",
    )
    rates = [_rates(a)] if a.choices else []
    return Section("exhibit-ngl", "The paper: NGL over data sets", (Prose(intro), _table(a), *rates))


def _printed() -> dict[tuple[str, str], float]:
    """Return what is printed by data set and loss; f1 to f4 are left out, whose formulas nobody published."""
    with PRINTED.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["loss"] and line["dataset"] != "mean"]
    return {(line["dataset"], line["loss"]): float(line["value"]) for line in lines}


def _table(a: Analysis) -> Table:
    columns = (
        Column("dataset", "data"),
        Column("model", "model"),
        Column("loss", "loss"),
        Column("printed", "printed (points)", "number", "difference from cross-entropy in the authors' table"),
        Column("paper_word", "in the paper's words"),
        Column(
            "ours", "ours (points)", "number", f"difference from cross-entropy with {simultaneous(len(a.challengers))}"
        ),
        Column("word", "by the paper's rule"),
        Column("apart", "ours less printed", "number"),
        Column("n", "n", "number", "seeds"),
    )
    printed = _printed()
    rows = [_row(a, cell, loss, printed) for cell in a.cells for loss in LOSSES]
    seen = {cell.values[0] for cell in a.cells}
    for dataset in dict.fromkeys(name for name, _ in printed):
        if dataset not in seen:
            rows += [_only_printed(dataset, loss, printed[dataset, loss]) for loss in LOSSES]
    caption = (
        "Data sets of the paper that this study lacks have a dash on our side: axes.dataset=[...] adds them, and "
        "python -m harness study=ngl asks for all seven."
    )
    return Table("ngl", "Differences from cross-entropy", columns, tuple(rows), caption)


def _paper_word(points: float) -> str:
    return "same" if abs(points) <= SAME else "more" if points > 0 else "less"


def _stressed(a: Analysis, cell: Cell) -> bool:
    """Return whether training was made harder in this cell: by wrong labels, rare classes or fewer images."""
    runs = where(a.main, cell=cell.values)
    return any(runs[name].notna().any() for name in runs if str(name).startswith("config.stress."))


def _row(a: Analysis, cell: Cell, loss: str, printed: dict[tuple[str, str], float]) -> Row:
    data, model = cell.values[:2]
    theirs = None if _stressed(a, cell) else printed.get((data, loss))
    absent = "the paper trained on whole, clean data" if (data, loss) in printed else "not in the paper"
    head = (Entry(data, note=cell.title), Entry(model if cell.short == cell.title else cell.short), Entry(loss))
    theirs_shown = (dash(absent),) * 2 if theirs is None else (
        Entry(number(theirs, 2, sign=True), theirs), Entry(_paper_word(theirs))
    )  # fmt: skip
    found = a.comparisons.get((cell, loss))
    filters = (*cell_filters(a, cell.values), *(loss_filters(a, loss) if loss in a.loss_facts else ()))
    if found is None or not found.n:
        missing = dash(f"python -m harness study={a.study.name} axes.loss=[cross_entropy,{','.join(LOSSES)}]")
        return Row((*head, *theirs_shown, *(missing,) * 4), filters=filters)
    points = a.metric.scale * found.difference
    keys = a.outcomes[cell, loss].paired_keys
    ours = replace(interval_entry(a, found, keys), value=points, low=None, high=None)
    apart = dash(absent) if theirs is None else Entry(number(points - theirs, 2, sign=True), points - theirs)
    return Row(
        (*head, *theirs_shown, ours, Entry(_paper_word(points)), apart, Entry(str(found.n), found.n)), filters=filters
    )


def _only_printed(dataset: str, loss: str, value: float) -> Row:
    missing = dash("not in this study")
    entries = (
        Entry(dataset),
        missing,
        Entry(loss),
        Entry(number(value, 2, sign=True), value),
        Entry(_paper_word(value)),
    )
    return Row((*entries, *(missing,) * 4))


def _rates(a: Analysis) -> Table:
    """Return the learning rates that were chosen for cross-entropy and NGL, over the number of classes."""
    columns = (
        Column("dataset", "data"),
        Column("model", "model"),
        Column("classes", "classes", "number"),
        Column("baseline", "rate of cross-entropy", "number", "chosen on validation; in brackets others as good"),
        Column("ngl", "rate of NGL", "number", "the same"),
        Column("ratio", "NGL's over it", "number"),
    )
    rows = []
    for cell in a.cells:
        base, ours = (a.choices.get((cell.values, loss)) for loss in ("cross_entropy", "ngl"))
        if base is None or ours is None:
            continue
        data, model = cell.values[:2]
        counts = [class_count(value) for value in column(where(a.main, cell=cell.values), "data.classes")]
        classes = next((count for count in counts if count is not None), None)
        head = (Entry(data, note=cell.title), Entry(model if cell.short == cell.title else cell.short))
        count = dash("not recorded") if classes is None else Entry(str(classes), classes)
        ratio = ours.rate / base.rate
        found = (_rate(base), _rate(ours), Entry(f"{ratio:.3g}", ratio))
        rows.append(Row((*head, count, *found), filters=cell_filters(a, cell.values)))
    caption = (
        "NGL is a mean over items and classes, so that its gradient gets shorter as 1 over the number of classes. "
        "AdamW's steps do not depend on the length of a gradient; those of plain descent do: base.optimizer=sgd asks "
        "for them."
    )
    return Table("ngl_rates", "Learning rates chosen", columns, tuple(rows), caption)


def _rate(choice: Choice) -> Entry:
    others = sorted({*choice.tied, *choice.contending} - {choice.rate})
    more = f" ({', '.join(f'{other:.3g}' for other in others)})" if others else ""
    return Entry(f"{choice.rate:.3g}{more}", choice.rate)
