"""A stage directory of message chunks whose writer is seen at every moment of its work.

Answers LIST and GET as an account does, through the scripted connection. What the reader sees may
be cut off at any byte, listed in any order, incomplete in a download, or refused.
"""

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.scripted_connection import Answer, lost_answer, refused

DIRECTORY = "runs/job/messages"
END_OF_CHUNK = "\n\n"


def number(value: int) -> dict[str, Any]:
    """Build a numbered message."""
    return {"method": "log", "params": {"message": str(value)}}


def number_of(message: Mapping[str, Any]) -> int:
    """Read the number of a message."""
    return int(message["params"]["message"])


CLOSED = {"method": "closed", "params": {}}


def chunk_of_ours(*messages: Mapping[str, Any]) -> bytes:
    """Write a chunk as the project's job scripts do: an empty line says that it is complete."""
    return ("".join(f"{json.dumps(m)}\n" for m in messages) + "\n").encode()


def chunk_of_dagster(*messages: Mapping[str, Any]) -> bytes:
    """Write a chunk as the stock writer does: nothing says that it is complete."""
    return "\n".join(json.dumps(m) for m in messages).encode()


class StagedMessages:
    """The directory.

    Attributes:
        files: What each chunk holds by now.
        grows: What a chunk will hold after the next LIST: it grows between LIST and GET.
        errors: How many of the next statements are refused.
        lost_downloads: How many of the files of the next GET do not arrive.
    """

    def __init__(self, seed: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.grows: dict[str, bytes] = {}
        self.errors = 0
        self.lost_downloads = 0
        self._random = random.Random(seed)

    def answer(self, text: str) -> Answer:
        """Answer LIST and GET."""
        if self.errors:
            self.errors -= 1
            return self._random.choice([refused(2, "temporary"), lost_answer()])
        return self._list() if text.startswith("LIST") else self._get(text)

    def _list(self) -> Answer:
        rows = [
            {"name": f"st/{DIRECTORY}/{name}", "size": len(body)}
            for name, body in self.files.items()
        ]
        self._random.shuffle(rows)
        self.files.update(self.grows)
        self.grows = {}
        return rows

    def _get(self, text: str) -> Answer:
        target = Path(re.search(r"'file://([^']*)'", text)[1])
        pattern = re.search(r"PATTERN = '(.*)'", text)[1].replace("\\\\", "\\")
        names = [name for name in self.files if re.fullmatch(pattern, f"{DIRECTORY}/{name}")]
        self._random.shuffle(names)
        lost, self.lost_downloads = self.lost_downloads, 0
        rows = []
        for name in names[lost:]:
            (target / name).write_bytes(self.files[name])
            rows.append({"file": name, "size": len(self.files[name]), "status": "DOWNLOADED"})
        return rows
