"""What `orbench check` leaves for a build server: a JUnit file and a Markdown summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from orbench.errors import RunError
from orbench.gate import Check, Gate
from orbench.report.export import Cell, Table
from orbench.report.format import interval, percent


def write_junit(gates: Sequence[Gate], path: Path) -> None:
    """Write the JUnit form that build servers read: one test suite a run, `MODEL (RUN)`, one test case a limit.

    Raises:
        orbench.RunError: The file cannot be written.
    """
    root = ElementTree.Element("testsuites", name="orbench check")
    for gate in gates:
        cases: list[tuple[str, str | None]] = [(check.measure, _failure(check)) for check in gate.checks]
        cases += [("finished", f"not finished: {gate.unfinished}")] if gate.unfinished else []
        name = _xml(f"{gate.model} ({gate.run})")
        failures = sum(failure is not None for _, failure in cases)
        suite = ElementTree.SubElement(root, "testsuite", name=name, tests=str(len(cases)), failures=str(failures))
        for limit, failure in cases:
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=limit)
            if failure is not None:
                ElementTree.SubElement(case, "failure", message=_xml(failure))
    _write(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True), append=False)


def write_summary(gates: Sequence[Gate], path: Path) -> None:
    """Append a Markdown table to the file, as a GitHub step's summary wants it.

    Raises:
        orbench.RunError: The file cannot be written.
    """
    rows: list[tuple[Cell, ...]] = []
    for gate in gates:
        for check in gate.checks:
            wanted = "over-refusal at most" if check.measure == "over_refusal_rate" else "toxic rejection at least"
            found = (check.value, interval(check.low, check.high))
            rows.append((gate.model, gate.run, f"{wanted} {percent(check.limit)}", *found, check.status))
        if gate.unfinished:
            rows.append((gate.model, gate.run, "finished", None, None, gate.unfinished))
    table = Table(("model", "run", "limit", "found", "95 % interval", "verdict"), tuple(rows))
    _write(path, (table.to_markdown() + "\n").encode(), append=True)


def _failure(check: Check) -> str | None:
    return None if check.passed else str(check)


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold, however they are escaped."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _write(path: Path, content: bytes, *, append: bool) -> None:
    try:
        with path.open("ab" if append else "wb") as file:
            file.write(content)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None
