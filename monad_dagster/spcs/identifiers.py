"""Names as Snowflake writes them: identifiers, qualified names, stage paths, job service names.

A name is held in its resolved form: upper case when it was written without quotes, verbatim when
it was quoted. Job services take unquoted identifiers only, and their name has to map to a DNS
label (underscore becomes dash), which bounds its length.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from monad_dagster.errors import ConfigError, problem

UNQUOTED_IDENTIFIER = re.compile(r"^[A-Za-z_][A-Za-z0-9_$]*$")
JOB_SERVICE_NAME = re.compile(r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$")
MAX_IDENTIFIER_LENGTH = 255
MAX_DNS_LABEL_LENGTH = 63  # RFC 1035; the service name becomes a DNS label
_PLAIN_STAGE_PATH = re.compile(r"^[A-Za-z0-9_.\-/=+]*$")
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


def resolve_identifier(text: str) -> str:
    """Return the name that *text* denotes: quoted verbatim, unquoted in upper case."""
    if text.startswith('"') and text.endswith('"') and len(text) > 2:
        return text[1:-1].replace('""', '"')
    if not UNQUOTED_IDENTIFIER.match(text) or len(text) > MAX_IDENTIFIER_LENGTH:
        raise ConfigError(
            problem(
                f"Identifier {text!r} is not valid",
                "An unquoted identifier holds letters, digits, _ and $, and starts with a letter",
                "Correct the name, or write it in double quotes",
            )
        )
    return text.upper()


def quote_identifier(name: str) -> str:
    """Write the resolved *name* for a statement, in quotes only where it needs them."""
    if UNQUOTED_IDENTIFIER.match(name) and name == name.upper():
        return name
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def split_name(text: str) -> list[str]:
    """Split a dotted name into its parts as written, respecting quotes."""
    parts: list[str] = []
    position = 0
    while position < len(text):
        match = _PART.match(text, position)
        if match is None:
            raise ConfigError(problem(f"Name {text!r} is not valid", "", "Write db.schema.name"))
        parts.append(match.group(0))
        position = match.end()
        if position < len(text) and text[position] == ".":
            position += 1
            if position == len(text):
                raise ConfigError(problem(f"Name {text!r} ends with a dot"))
        elif position < len(text):
            raise ConfigError(problem(f"Name {text!r} is not valid", "", "Write db.schema.name"))
    return parts


@dataclass(frozen=True, order=True)
class QualifiedName:
    """A fully qualified schema object, each part in its resolved form."""

    database: str
    schema: str
    name: str

    @classmethod
    def parse(
        cls, text: str, *, database: str | None = None, schema: str | None = None
    ) -> "QualifiedName":
        """Read a name of one to three parts, completing it from *database* and *schema*.

        Raises:
            ConfigError: A part is missing or is not an identifier.
        """
        parts = split_name(text)
        given = [part for part in (database, schema) if part is not None]
        if len(parts) < 3 and len(given) == 2:
            parts = [*given[: 3 - len(parts)], *parts]
        if len(parts) != 3:
            raise ConfigError(
                problem(f"Name {text!r} is not fully qualified", "", "Write database.schema.name")
            )
        return cls(*(resolve_identifier(part) for part in parts))

    @property
    def schema_name(self) -> str:
        """The schema as a statement writes it."""
        return f"{quote_identifier(self.database)}.{quote_identifier(self.schema)}"

    def sibling(self, name: str) -> "QualifiedName":
        """Return the object called *name* in the same schema."""
        return QualifiedName(self.database, self.schema, resolve_identifier(name))

    def sql(self) -> str:
        """Write the name for a statement."""
        return f"{self.schema_name}.{quote_identifier(self.name)}"

    def registry_path(self) -> str:
        """Write the name as the path of an image repository, in lower case with slashes."""
        return f"/{self.database}/{self.schema}/{self.name}".lower()

    def __str__(self) -> str:
        return self.sql()


def check_job_service_name(name: QualifiedName) -> QualifiedName:
    """Return *name* if a job service may bear it.

    Raises:
        ConfigError: A part needs quotes, or the name does not map to a DNS label.
    """
    for part in (name.database, name.schema):
        if quote_identifier(part).startswith('"'):
            raise ConfigError(
                problem(
                    f"Job service {name} cannot be created",
                    f"{part!r} needs quotes and job services take unquoted identifiers only",
                    "Use a database and schema with plain names",
                )
            )
    plain = quote_identifier(name.name)
    if not JOB_SERVICE_NAME.match(plain) or len(plain) > MAX_DNS_LABEL_LENGTH:
        raise ConfigError(
            problem(
                f"Job service name {name.name!r} is not valid",
                "It must map to a DNS label: letters, digits and underscores, a letter first, "
                f"at most {MAX_DNS_LABEL_LENGTH} characters",
                "Choose another name",
            )
        )
    return name


@dataclass(frozen=True, order=True)
class StagePath:
    """A place on a stage: the stage's name and a relative path, empty for its root."""

    stage: QualifiedName
    path: str = ""

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if ".." in parts or self.path.startswith("/") or "\\" in self.path or "\n" in self.path:
            raise ConfigError(
                problem(
                    f"Stage path {self.path!r} is not valid",
                    "It must be relative, without '..' and without backslashes",
                )
            )
        object.__setattr__(self, "path", "/".join(part for part in parts if part != "."))

    @classmethod
    def parse(
        cls, text: str, *, database: str | None = None, schema: str | None = None
    ) -> "StagePath":
        """Read `@db.schema.stage/path`, quoted or not."""
        bare = text.strip().strip("'")
        if not bare.startswith("@"):
            raise ConfigError(problem(f"Stage path {text!r} does not start with @"))
        stage, _, path = bare[1:].partition("/")
        name = QualifiedName.parse(stage, database=database, schema=schema)
        return cls(name, path.strip("/"))

    def __truediv__(self, other: str) -> "StagePath":
        child = other.strip("/")
        return StagePath(self.stage, f"{self.path}/{child}" if self.path else child)

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def parent(self) -> "StagePath":
        """The directory that holds this path."""
        parent = str(PurePosixPath(self.path).parent)
        return StagePath(self.stage, "" if parent == "." else parent)

    def mounted(self, mount_path: str, *, mounted_from: "StagePath | None" = None) -> str:
        """Return where the path appears in a container that mounts the stage at *mount_path*."""
        relative = self.path
        if mounted_from is not None and mounted_from.path:
            relative = str(PurePosixPath(self.path).relative_to(mounted_from.path))
        return str(PurePosixPath(mount_path) / relative)

    def sql(self, *, directory: bool = False) -> str:
        """Write the path for a statement; a *directory* ends with a slash, so no prefix matches.

        Args:
            directory: Whether the path names a directory.
        """
        text = f"@{self.stage.sql()}"
        if self.path:
            text = f"{text}/{self.path}"
        if directory:
            text = f"{text}/"
        if _PLAIN_STAGE_PATH.match(self.path):
            return text
        escaped = text.replace("'", "\\'")
        return f"'{escaped}'"

    def __str__(self) -> str:
        return f"@{self.stage}/{self.path}" if self.path else f"@{self.stage}"
