"""The table of `make test-chaos`: tries, held and lost of each fault on each program."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path("results/chaos.json")
COMMAND = f"make test-chaos TRIES={os.environ.get('TRIES', 10)}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    found: list[dict[str, Any]] = [
        value for report in reports for name, value in getattr(report, "user_properties", []) if name == "chaos"
    ]
    if not found:
        return
    terminalreporter.write_line(f"{'fault':16}{'program':42}{'tries':>6}{'held':>6}{'lost':>6}")
    for row in found:
        lost = len(row["lost"])
        terminalreporter.write_line(
            f"{row['fault']:16}{row['program']:42}{row['tries']:6}{row['tries'] - lost:6}{lost:6}"
        )
    RESULTS.write_text(json.dumps({"command": COMMAND, "rows": found}, indent=1) + "\n")
