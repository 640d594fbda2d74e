"""The list of documented `monad` names, and the page written from it.

`python -m tests.support.monad_api` writes `docs/monad-api.md` from `tests/data/monad_api.yaml`.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "monad_api.yaml"
PAGE = ROOT / "docs" / "monad-api.md"
STATES = {
    "works": "works",
    "ours": "works, our definition",
    "no effect": "accepted, no effect (warns)",
    "not built": "not implemented (clear error)",
}
_HEAD = """# The `monad` API: documented names and their state

Written from `tests/data/monad_api.yaml` by `python -m tests.support.monad_api`; a contract test walks the same
file. The engine is an independent implementation: a name works as far as it is publicly documented, and where the
documentation is silent the definition is ours and marked so. D: documented for 1.7. D-old: for an earlier release.
"Not implemented" raises `monad.errors.NotBuiltError` when the configuration is read or the name is called, before
any training. The documented milestones of the log are paraphrases, not names: fitting started and
finished with its seconds and the cleaned directory are logged; queueing, attribute fitting and worker counts are not.
The walk checks that a name is there with its default, warns or is refused; what it does is tested elsewhere.
"""


def load() -> dict[str, Any]:
    """Return the list."""
    return yaml.safe_load(DATA.read_text(encoding="utf-8"))


def rows(listed: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (section, owner, row) for every name."""
    made: list[tuple[str, str, dict[str, Any]]] = []
    for section, content in listed.items():
        if isinstance(content, dict):
            made += [(section, owner, row) for owner, found in content.items() for row in found]
        else:
            made += [(section, ", ".join(row.get("paths", [])), row) for row in content]
    return made


def render(listed: dict[str, Any]) -> str:
    """Return the page."""
    every = rows(listed)
    counts = Counter(row["state"] for _, _, row in every)
    lines = [_HEAD, "| State | Names |", "|---|---|"]
    lines += [f"| {text} | {counts[state]} |" for state, text in STATES.items()]
    lines += [f"| all | {len(every)} |"]
    titles = {
        "imports": ("Imports", "Import from"),
        "parameters": ("Parameters and fields", "Of"),
        "members": ("Members", "Of"),
        "yaml": ("Foundation-model YAML", "Key"),
        "files": ("Files", ""),
        "metrics": ("Monitored metrics", ""),
        "logs": ("Logs", ""),
    }
    for section, (title, owner_title) in titles.items():
        found = [(owner, row) for name, owner, row in every if name == section]
        with_owner = any(owner for owner, _ in found)
        names = ["Name", *([owner_title] if with_owner else []), "Evidence", "State", "Notes"]
        lines += ["", f"## {title}", "", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
        for owner, row in found:
            name = f"`{row['name']}`" if " " not in row["name"] else row["name"]
            default = _default(row)
            note = "; ".join(part for part in (default, str(row.get("note", ""))) if part)
            cells = [name, *([f"`{owner}`"] if with_owner else []), row["evidence"]]
            lines.append(f"| {' | '.join([*cells, STATES[row['state']], note])} |")
    return "\n".join(lines) + "\n"


def _default(row: dict[str, Any]) -> str:
    if "default" not in row:
        return ""
    value = row["default"]
    return "required" if value == "REQUIRED" else f"default `{value}`"


if __name__ == "__main__":
    PAGE.write_text(render(load()), encoding="utf-8")
