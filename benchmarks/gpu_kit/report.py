"""A step's record as Markdown."""

from __future__ import annotations

from typing import Any


def markdown(record: dict[str, Any]) -> str:
    """Return title, machine, a table of checks, a table for each check that made rows, the errors in full."""
    checks = record["checks"]
    passed = sum(entry["outcome"] == "passed" for entry in checks)
    blocks = [
        f"# GPU kit, {record['step']}",
        describe(record["machine"]),
        f"{passed} of {len(checks)} checks passed, in {record.get('seconds', 0):.0f} s.",
        table([overview(entry) for entry in checks]),
    ]
    for entry in checks:
        if rows := entry["found"].get("rows"):
            blocks += [f"## {entry['name']}", table(rows)]
    for entry in checks:
        if "log" in entry:
            blocks += [f"## {entry['name']}: {entry['outcome']}", f"```\n{entry['log'].strip()}\n```"]
    return "\n\n".join(block for block in blocks if block) + "\n"


def describe(machine: dict[str, Any]) -> str:
    """Return one line a fact."""
    return "\n".join(f"- {name}: {_cell(value)}" for name, value in machine.items())


def overview(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the check's row: its plain values, but no tables."""
    found = entry["found"]
    skipped = {"passed", "rows"}
    values = [f"{name} {_cell(value)}" for name, value in found.items() if name not in skipped and _is_plain(value)]
    return {
        "check": entry["name"],
        "outcome": entry["outcome"],
        "seconds": entry["seconds"],
        "found": "; ".join(values)[:400],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return columns in the order in which they first appear; "" without rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        return ""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(_cell(row.get(name, '')) for name in columns)} |" for row in rows]
    return "\n".join(lines)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(each) for each in value)
    return str(value).replace("|", "\\|").replace("\n", " ")
