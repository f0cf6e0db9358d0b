"""The result of a backtest as a table for a person."""

from __future__ import annotations

from agent.offline.backtest import Backtest, TriggerReport


def table(found: Backtest) -> list[str]:
    """Return a line for each trigger below a line of headings, in columns of equal width."""
    head = ("trigger", "seen", "delay p50", "p95", "false alarms", "a healthy hour", "healthy h", "unknown h")
    rows = [head, *(_row(trigger) for trigger in found.triggers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(trigger: TriggerReport) -> tuple[str, ...]:
    delays, rate = trigger.delays, trigger.false_alarms_per_hour

    def quantile(q: float) -> str:
        return f"{delays[min(int(q * len(delays)), len(delays) - 1)]:.0f} s" if delays else "-"

    return (
        f"{trigger.flag}/{trigger.trigger}",
        f"{trigger.detected} of {len(trigger.detections)}",
        quantile(0.5),
        quantile(0.95),
        str(len(trigger.false_alarms)),
        "-" if rate is None else f"{rate:.3g}",
        f"{trigger.healthy_hours:.2f}",
        f"{trigger.unknown_hours:.2f}",
    )
