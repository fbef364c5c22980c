"""The table that a run ends with."""

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = {
    "rouge_l": ("Rouge-L\nsampled", "{:.1f}"),
    "greedy_rouge_l": ("Rouge-L\ngreedy", "{:.1f}"),
    "exact_match": ("exact match\nsampled", "{:.1f}"),
    "greedy_exact_match": ("exact match\ngreedy", "{:.1f}"),
    "reverse_kl_nats": ("reverse KL\nnats/response", "{:.2f}"),
    "nll_nats": ("gold NLL\nnats/token", "{:.3f}"),
}
LABELS = {"before": "student before", "after": "student after", "teacher": "teacher"}


def result_table(summary: Mapping[str, Any]) -> str:
    """Render the evaluations of ``summary`` and the ledger's balance as plain text."""
    table = Table(title=f"{summary['recipe']}: {summary['steps']} steps", title_justify="left")
    table.add_column("")
    for heading, _ in COLUMNS.values():
        table.add_column(heading, justify="right")
    for when, label in LABELS.items():
        if scores := summary["eval"].get(when):
            cells = [_cell(scores.get(key), form) for key, (_, form) in COLUMNS.items()]
            table.add_row(label, *cells)
    return (
        as_text(table)
        + _accounts(summary)
        + "".join(_time(*item) for item in summary["time"].items())
    )


def as_text(table: Table) -> str:
    """Render a table for a log, without colours."""
    console = Console(file=io.StringIO(), width=110, color_system=None)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _accounts(summary: Mapping[str, Any]) -> str:
    ledger, speed = summary["ledger"], summary["throughput"]
    dropped = sum(ledger["dropped"].values())
    cache = summary.get("teacher_cache") or {}
    hits = f"; teacher cache hit rate {cache['hit_rate']:.0%}" if cache else ""
    return (
        f"ledger: {ledger['issued']} issued = {ledger['consumed']} consumed + {dropped} dropped "
        f"+ {ledger['in_flight']} in flight; "
        f"weight pushes: {pushes_in_words(summary['weight_sync'])}; "
        f"{speed['pairs_per_second']:.1f} pairs/s{hits}"
    )


def pushes_in_words(pushes: Mapping[str, Any]) -> str:
    """Say how many pushes there were, and of how many it is proved that they arrived."""
    count, proved = pushes["count"], pushes.get("proved", pushes["count"])
    if count and not pushes["verified"]:
        return f"{count}, {proved} proved, NOT the last"
    if proved >= count:
        return f"{count}, every one proved"
    return f"{count}, {proved} proved and {count - proved} replaced before anybody drew with them"


def _time(role: str, account: Mapping[str, Any]) -> str:
    """Say where a role's time went: the three largest parts of work, and of waiting."""
    wall = account["wall_seconds"]

    def shares(seconds: Mapping[str, float]) -> str:
        largest = list(seconds.items())[:3]
        return ", ".join(f"{what.replace('_', ' ')} {part / wall:.0%}" for what, part in largest)

    if not wall:
        return ""
    busy = f"{account['busy_seconds'] / wall:.0%} busy ({shares(account['busy'])})"
    return f"\n{role}: {busy}; waits for {shares(account['idle'])}"
