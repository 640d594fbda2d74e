"""The ledger of what is assumed of Snowflake: complete, and as generated."""

import json
import re

from tests.support import fidelity


def test_every_row_has_a_test_and_every_test_a_row():
    """Rows and `fidelity` marks name each other."""
    text = "".join(
        path.read_text() for path in (fidelity.ROOT / "tests/contract/portable").glob("test_*.py")
    )
    marked = {
        name
        for marks in re.findall(r"mark\.fidelity\(([^)]*)\)", text)
        for name in re.findall(r'"([^"]+)"', marks)
    }
    rows = fidelity.rows()
    assert marked == {name for name, row in rows.items() if row.get("test") != "none"}
    assert {row["mark"] for row in rows.values()} <= set("DCRI?")


def test_page_is_generated():
    """docs/fidelity.md is what the rows and the record give."""
    record = json.loads((fidelity.ROOT / "docs/fidelity.json").read_text())
    assert (fidelity.ROOT / "docs/fidelity.md").read_text() == fidelity.render(record)


def test_states():
    """A row is inferred until a real account confirms or contradicts it; a local one never does."""
    row = {"row": "r", "mark": "I", "topic": "T", "claim": "c"}
    answer = {"agrees": True, "date": "2026-12-01", "version": "9.1", "detail": ""}
    assert fidelity.state(row, {"r": {"local": answer}}) == "inferred"
    assert fidelity.state(row, {"r": {"snowflake": answer}}) == "confirmed 2026-12-01 (9.1)"
    refused = answer | {"agrees": False, "detail": "was 2003"}
    assert fidelity.state(row, {"r": {"snowflake": refused}}) == (
        "**contradicted 2026-12-01** (9.1): was 2003"
    )
