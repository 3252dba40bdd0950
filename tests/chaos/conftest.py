"""The table of `make test-chaos`: tries, held and lost of each fault on each program."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path("results/chaos.json")
COMMAND = f"make test-chaos TRIES={os.environ.get('TRIES', 10)}"
ROWS: list[dict[str, Any]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if found := [value for name, value in report.user_properties if name == "chaos" and report.when == "call"]:
        ROWS.extend(found)
        if "PYTEST_XDIST_WORKER" not in os.environ:  # after each, so that a suite that is stopped leaves its counts
            kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []
            by_name = {(row["fault"], row["program"]): row for row in [*kept, *ROWS]}  # -k renews a part
            rows = [by_name[name] for name in sorted(by_name)]
            RESULTS.write_text(json.dumps({"command": COMMAND, "rows": rows}, indent=1) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for row in ROWS:
        lost = len(row["lost"])
        counts = f"{row['tries']:6} tries {row['tries'] - lost:6} held {lost:6} lost"
        terminalreporter.write_line(f"{row['fault']:16}{row['program']:42}{counts}")
