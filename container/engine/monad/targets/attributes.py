"""`Attributes`: the columns of the main entity's own attribute tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from monad.errors import nearest


class Attributes:
    """The attributes of one main entity: `attributes["source"]["column"]` or by column alone."""

    __slots__ = ("_sources",)

    def __init__(self, sources: Mapping[str, Mapping[str, Any]]) -> None:
        self._sources = sources

    def __getitem__(self, name: str) -> Any:
        if name in self._sources:
            return self._sources[name]
        lower = name.lower()
        for source, columns in self._sources.items():
            if source.lower() == lower:
                return columns
            for column in columns:
                if column.lower() == lower:
                    return columns[column]
        known = [*self._sources, *(c for columns in self._sources.values() for c in columns)]
        raise KeyError(f"No attribute `{name}`; {nearest(name, known)}")

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or *default* when there is none of that name."""
        try:
            return self[name]
        except KeyError:
            return default
