"""Renders the tables of docs/job-service-client.md from the code: `python -m tests.support.client_reference`."""

import dataclasses
import re
from pathlib import Path

from monad_dagster.components import JobServiceComponent
from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.pipes.failures import RULES
from monad_dagster.pipes.launch import LaunchOptions
from monad_dagster.pipes.metadata import SpcsMetadataSet

PAGE = Path(__file__).parents[2] / "docs" / "job-service-client.md"
EXAMPLES = PAGE.parent / "examples"


def fields() -> str:
    """Render the resource's fields."""
    rows = ["| Field | Default | What |", "|---|---|---|"]
    for name, field in PipesSPCSClient.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "NamedConnection()" if name == "snowflake" else repr(default)
        rows.append(f"| `{name}` | `{shown}` | {field.description} |")
    return "\n".join(rows)


def options() -> str:
    """Render what one call may do differently, from the docstring and the defaults."""
    described = described_attributes(LaunchOptions)
    rows = ["| Option | Default | What |", "|---|---|---|"]
    for field in dataclasses.fields(LaunchOptions):
        empty = field.default is dataclasses.MISSING
        default = field.default_factory() if empty else field.default
        rows.append(f"| `{field.name}` | `{default!r}` | {described[field.name]} |")
    return "\n".join(rows)


def failures() -> str:
    """Render the failure classes."""
    rows = ["| Class | Tried again | Recognized by | What to do |", "|---|---|---|---|"]
    for failure_class, rule in RULES.items():
        again = "yes" if rule.retry else "no"
        rows.append(f"| `{failure_class}` | {again} | {rule.seen} | {rule.advice}. |")
    return "\n".join(rows)


def metadata() -> str:
    """Render the metadata keys."""
    described = described_attributes(SpcsMetadataSet)
    rows = ["| Key | What |", "|---|---|"]
    rows += [f"| `spcs/{name}` | {described[name]} |" for name in SpcsMetadataSet.model_fields]
    return "\n".join(rows)


def example() -> str:
    """Render the example."""
    code = (EXAMPLES / "word_count.py").read_text().split('"""\n', 1)[1].strip()
    return f"```python\n{code}\n```"


def script() -> str:
    """Render the example's script."""
    code = (EXAMPLES / "scripts" / "count.py").read_text().split('"""\n', 1)[1].strip()
    return f"```python\n{code}\n```"


def component() -> str:
    """Render the YAML of the component and its attributes."""
    document = (EXAMPLES / "defs.yaml").read_text().strip()
    rows = ["| Attribute | Default | What |", "|---|---|---|"]
    for name, field in JobServiceComponent.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "required" if field.is_required() else f"`{default!r}`"
        rows.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join([f"```yaml\n{document}\n```", "", *rows])


def described_attributes(cls: type) -> dict[str, str]:
    """Read the attribute descriptions of a class docstring."""
    text = re.split(r"Attributes:\n", cls.__doc__ or "")[1]
    found = re.findall(r"^ +(\w+): ((?:.|\n(?! +\w+: ))+)", text, re.MULTILINE)
    return {name: " ".join(what.split()) for name, what in found}


SECTIONS = {
    "fields": fields,
    "options": options,
    "failures": failures,
    "metadata": metadata,
    "example": example,
    "script": script,
    "component": component,
}


def render(page: str) -> str:
    """Put every section into the page, between its marks."""
    for name, make in SECTIONS.items():
        pattern = rf"(<!-- {name}: generated -->\n).*?(<!-- end -->)"
        body = make()
        page, count = re.subn(
            pattern, lambda m, body=body: f"{m[1]}{body}\n{m[2]}", page, flags=re.DOTALL
        )
        assert count == 1, f"the page has no section {name}"
    return page


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
