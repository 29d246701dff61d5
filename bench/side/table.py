"""Ratios with their spread, for the eye and as Markdown."""

from __future__ import annotations

import statistics

from . import machine

# The load generator is what was measured when it takes so much more than the broker, of processors so busy.
CLIENT_TO_BROKER = 1.5
BUSY_SHARE = 0.85


def compared(row, result: dict) -> list[tuple]:
    """For each figure: itself, the medians of both sides, the sorted ratios (none without a figure to divide by)."""
    first, second = row.sides
    found = []
    for figure in row.figures:
        ours, theirs = result[first][figure.key], result[second][figure.key]
        ratios = sorted(a / b for a, b in zip(ours, theirs) if b > 0)
        found.append((figure, statistics.median(ours), statistics.median(theirs), ratios))
    return found


def verdict(figure, ratios: list[float]) -> tuple[str, str]:
    """The bar and whether the median meets it; empty without one."""
    if figure.bar is None:
        return "", ""
    median = statistics.median(ratios)
    met = median >= figure.bar if figure.more_is_better else median <= figure.bar
    return f"{'≥' if figure.more_is_better else '≤'} {figure.bar:.3g}", "met" if met else "MISSED"


def lines(row, result: dict) -> list[str]:
    """The lines of one row."""
    shown = [f"\n{row.name}: {row.what} ({row.sides[0]} / {row.sides[1]})"]
    for figure, ours, theirs, ratios in compared(row, result):
        if not ratios:
            shown.append(f"  {figure.label:<26} {ours:>10.4g} {theirs:>10.4g}  nothing to divide by")
            continue
        bar, met = verdict(figure, ratios)
        shown.append(
            f"  {figure.label:<26} {ours:>10.4g} {theirs:>10.4g}"
            f"  ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
            + (f"  bar {bar}: {met}" if bar else ""))
    return shown + [f"  note: {note}" for note in notes(row, result)]


def notes(row, result: dict) -> list[str]:
    """What a reader must know of the load generator."""
    found = []
    late = [side for side in row.sides if any(result[side].get("generator_was_late", []))]
    if late:
        found.append(f"the load generator itself was late in a run against {' and '.join(late)}")
    for side in row.sides:
        medians = [result[side][key] for key in result[side] if key.endswith("_latency_ms.p50")]
        if any(value <= 0 for values in medians for value in values):
            found.append(f"a latency of nothing against {side} cannot be: clocks of the load generator disagree")
        shares = client_share(result[side])
        if shares is None:
            continue
        client, broker, busy = shares
        if client > CLIENT_TO_BROKER * broker and busy > BUSY_SHARE:
            found.append(f"against {side} the load generator is the bottleneck: compare CPU "
                         f"(it took {client:.1f} s, the broker {broker:.1f} s, {busy:.0%} of the processors in all)")
    return found


def client_share(figures: dict) -> tuple[float, float, float] | None:
    """CPU seconds of client and broker, and their share of what all processors had: medians."""
    if not figures.get("wall_s"):
        return None
    client, broker = (statistics.median(figures[key]) for key in ("client_cpu_s", "broker_cpu_s"))
    return client, broker, (client + broker) / statistics.median(figures["wall_s"]) / machine.processors()


def markdown(rows: list, results: dict, alternations: int, seconds: int) -> str:
    """Tables for docs/PERFORMANCE.md, one for each pair of sides, with what they were measured on."""
    text = [f"{machine.describe()}; {alternations} alternations, loads of {seconds} s; "
            "ratio: median (smallest to largest).", ""]
    for pair in dict.fromkeys(row.sides for row in rows):
        text += [f"| row | figure | {pair[0]} | {pair[1]} | ratio | bar |", "|---|---|--:|--:|--:|---|"]
        noted = []
        for row in rows:
            if row.sides != pair or row.name not in results:
                continue
            text += [markdown_line(row.name, *item) for item in compared(row, results[row.name])]
            noted += [f"- {row.name}: {note}." for note in notes(row, results[row.name])]
        text += ["", *noted, *([""] if noted else [])]
    return "\n".join(text)


def markdown_line(name: str, figure, ours: float, theirs: float, ratios: list[float]) -> str:
    """One line of a table."""
    head = f"| {name} | {figure.label} | {amount(ours)} | {amount(theirs)} |"
    if not ratios:
        return f"{head} – | |"
    bar, met = verdict(figure, ratios)
    spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    return f"{head} {spread} | {f'{bar}, {met}' if bar else ''} |"


def amount(value: float) -> str:
    """A number with three digits that count, or whole with separators."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
