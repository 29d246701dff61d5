"""Ratios with their spread."""

from __future__ import annotations

import statistics


def lines(row, result: dict) -> list[str]:
    """The lines of one row: for each figure the medians of both sides and ours / Kafka's."""
    shown = [f"\n{row.name}: {row.what}"]
    for figure in row.figures:
        ours, theirs = result["vltava"][figure.key], result["kafka"][figure.key]
        ratios = sorted(a / b for a, b in zip(ours, theirs) if b > 0)
        if not ratios:
            shown.append(f"  {figure.label:<34} no figure of Kafka's to compare with")
            continue
        median = statistics.median(ratios)
        bar = ""
        if figure.bar is not None:
            met = median >= figure.bar if figure.more_is_better else median <= figure.bar
            sign = "≥" if figure.more_is_better else "≤"
            bar = f"  bar {sign} {figure.bar:.3g}: {'met' if met else 'MISSED'}"
        shown.append(
            f"  {figure.label:<34} {statistics.median(ours):>10.4g} {statistics.median(theirs):>10.4g}"
            f"  ratio {median:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}){bar}"
        )
    late = [side for side in ("vltava", "kafka") if any(result[side].get("generator_was_late", []))]
    if late:
        shown.append(f"  note: the load generator itself was late in a run against {' and '.join(late)}")
    return shown
