"""Which lines of a repeated, overlapping answer are new, and whether lines are missing before them.

Pure: one `ContainerTail` remembers what one container has said so far.
"""

from dataclasses import dataclass, field

GAP = "[lines missing here: more than the node keeps were written between two looks]"
# GET_SERVICE_LOGS stops at 100 KB; an answer this close to it has lost its beginning.
FULL_ANSWER_BYTES = 95 * 1024


@dataclass
class ContainerTail:
    """Picks the new lines out of repeated, overlapping answers of one container.

    Attributes:
        since: Timestamp of the newest line seen; "" before the first.
        seen: The lines at that timestamp, which an inclusive answer repeats.
        previous: The last answer without timestamps.
    """

    since: str = ""
    seen: list[str] = field(default_factory=list)
    previous: list[str] = field(default_factory=list)

    def take_timestamped(self, text: str, *, max_lines: int | None = None) -> list[str]:
        """Return the new lines of an answer whose lines begin with a timestamp.

        An answer starts at `since`, inclusive: without a line that is known already, its beginning
        was cut off and a mark stands for what is missing.

        Args:
            text: The answer.
            max_lines: How many lines were asked for.
        """
        lines = text.splitlines()
        connected = bool(self.since) or not _is_full(text, len(lines), max_lines)
        overlaps = not self.since
        skipped = list(self.seen)
        fresh: list[str] = []
        for line in lines:
            stamp, _, rest = line.partition(" ")
            is_stamped = _looks_like_timestamp(stamp)
            if is_stamped and stamp < self.since:
                overlaps = True
                continue
            if stamp == self.since and line in skipped:
                overlaps = True
                skipped.remove(line)
                continue
            if is_stamped and stamp > self.since:
                self.since, self.seen = stamp, []
            self.seen.append(line)
            fresh.append(rest if is_stamped else line)
        return fresh if not fresh or (connected and overlaps) else [GAP, *fresh]

    def take_tail(self, text: str, *, max_lines: int | None = None) -> list[str]:
        """Return the new lines of an answer without timestamps, by the longest overlap."""
        lines = text.splitlines()
        if not self.previous:
            gap = _is_full(text, len(lines), max_lines)
            fresh = lines
        else:
            overlap = _overlap(self.previous, lines)
            gap, fresh = overlap == 0, lines[overlap:]
        if lines:
            self.previous = lines
        return [GAP, *fresh] if gap and lines else fresh


def _is_full(text: str, num_lines: int, max_lines: int | None) -> bool:
    """Whether an answer is as large as answers get."""
    if max_lines is not None and num_lines >= max_lines:
        return True
    return len(text) >= FULL_ANSWER_BYTES or len(text.encode()) >= FULL_ANSWER_BYTES


def _looks_like_timestamp(word: str) -> bool:
    return len(word) >= 20 and word[4:5] == "-" and word[10:11] == "T"


def _overlap(previous: list[str], current: list[str]) -> int:
    """Return how many lines at the start of *current* are the end of *previous*."""
    limit = min(len(previous), len(current))
    for length in range(limit, 0, -1):
        if previous[-length:] == current[:length]:
            return length
    return 0
