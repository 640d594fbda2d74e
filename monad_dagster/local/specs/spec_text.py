"""From the text of a service specification to plain data, without trusting the text.

YAML 1.2 core values only (no dates, no yes/no booleans), bounded in size, depth and number
of values, aliases included; duplicate and merge keys are refused. Templates are filled in here.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

MAX_SPEC_BYTES = 256 * 1024
MAX_VALUES = 20_000
MAX_DEPTH = 32

_PLACEHOLDER = re.compile(
    r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*"
    r"(?:\|\s*default\(\s*(?:'([^']*)'|\"([^\"]*)\"|([^\s,()'\"]+))\s*(?:,\s*(true|false)\s*)?\)\s*)?\}\}"
)
_OPENING = re.compile(r"\{\{")


class InvalidSpecError(ValueError):
    """A specification is refused; the message is Snowflake's text after `Invalid spec: `."""


class _SpecLoader(yaml.SafeLoader):
    """A safe loader with YAML 1.2 scalars and without merge or duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_SpecLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_SpecLoader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_SpecLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]{0,18})$"), list("-+0123456789")
)
_SpecLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]{1,30}\.[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?$"),
    list("-+.0123456789"),
)


def _mapping(loader: _SpecLoader, node: yaml.MappingNode) -> Iterator[dict[str, Any]]:
    result: dict[str, Any] = {}
    yield result
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float)) or isinstance(key, bool):
            raise InvalidSpecError(f"keys must be strings, line {key_node.start_mark.line + 1}")
        if str(key) in result:
            raise InvalidSpecError(f"duplicate key '{key}', line {key_node.start_mark.line + 1}")
        result[str(key)] = loader.construct_object(value_node, deep=True)


_SpecLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load_spec_text(text: str) -> dict[str, Any]:
    """Return the mapping that a specification's YAML or JSON text holds.

    Raises:
        InvalidSpecError: The text is no YAML mapping, or is larger than any real specification.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_SPEC_BYTES:
        raise InvalidSpecError(f"the specification is larger than {MAX_SPEC_BYTES} bytes")
    try:
        data = yaml.load(text, Loader=_SpecLoader)  # noqa: S506 - a SafeLoader subclass
    except InvalidSpecError:
        raise
    except RecursionError:
        raise InvalidSpecError("the specification is nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise InvalidSpecError(
            f"the specification is not valid YAML: {_first_line(error)}"
        ) from None
    _check_bounds(data)
    if not isinstance(data, dict):
        raise InvalidSpecError("the specification must be a mapping with the key 'spec'")
    return data


def render_template(template: str, values: dict[str, str]) -> str:
    """Fill the `{{ name }}` placeholders of a specification template.

    Args:
        template: The template's text.
        values: USING keys, case-sensitive, with their values as text.
    """

    def fill(found: re.Match[str]) -> str:
        name, blank_too = found[1], found[5] == "true"
        default = next((group for group in found.group(2, 3, 4) if group is not None), None)
        value = values.get(name)
        if value is None or (blank_too and not value.strip()):
            value = default if default is not None else value
        if value is None:
            raise InvalidSpecError(f"no value given for template variable '{name}'")
        return value

    if len(template) > MAX_SPEC_BYTES:
        raise InvalidSpecError(f"the template is larger than {MAX_SPEC_BYTES} bytes")
    leftover = _OPENING.search(_PLACEHOLDER.sub("", template))
    if leftover:
        raise InvalidSpecError("a template placeholder could not be read")
    return _PLACEHOLDER.sub(fill, template)


def template_value(value: object) -> str:
    """Return a USING value as the text that goes into the template."""
    if isinstance(value, str):
        return value
    return json.dumps(value)


def _check_bounds(data: object) -> None:
    budget = MAX_VALUES
    pending: list[tuple[object, int]] = [(data, 0)]
    while pending:
        value, depth = pending.pop()
        budget -= 1
        if budget < 0 or depth > MAX_DEPTH:
            raise InvalidSpecError("the specification holds too many or too deeply nested values")
        if isinstance(value, dict):
            pending.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list):
            pending.extend((item, depth + 1) for item in value)


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{what}, line {mark.line + 1}" if mark is not None else str(what)
