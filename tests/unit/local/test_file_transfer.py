"""Streams become files: in order, one piece ahead of the disk, errors where they belong."""

import asyncio
import io
import threading

import pytest

from monad_dagster.local.stages.file_transfer import PIECE_BYTES, write_stream


class SlowFile(io.BytesIO):
    """A file whose first write waits until the test lets it go."""

    def __init__(self):
        super().__init__()
        self.may_write, self.is_writing = threading.Event(), threading.Event()

    def writelines(self, lines):
        self.is_writing.set()
        assert self.may_write.wait(10)
        super().writelines(lines)


def write(pieces, file, check=lambda: None):
    """Run a stream to its end."""
    asyncio.run(write_stream(pieces, file, check))


async def several(*pieces):
    """Yield pieces."""
    for piece in pieces:
        yield piece


def test_pieces_are_written_in_their_order():
    """Small and large pieces come out as they went in."""
    pieces = [
        b"a" * 10,
        b"b" * PIECE_BYTES,
        b"c" * (PIECE_BYTES + 5),
        b"d",
        b"e" * PIECE_BYTES,
        b"f",
    ]
    file = io.BytesIO()
    write(several(*pieces), file)
    assert file.getvalue() == b"".join(pieces)


def test_the_next_piece_arrives_while_one_is_written():
    """The stream is read on although the disk has not taken the piece before."""
    file = SlowFile()

    async def pieces():
        yield b"a" * PIECE_BYTES
        await asyncio.to_thread(file.is_writing.wait, 10)
        yield b"b"
        file.may_write.set()

    write(pieces(), file)
    assert file.getvalue() == b"a" * PIECE_BYTES + b"b"


def test_a_broken_stream_ends_after_its_write():
    """The file is not given back while a thread still writes it."""
    file = SlowFile()

    async def pieces():
        yield b"a" * PIECE_BYTES
        await asyncio.to_thread(file.is_writing.wait, 10)
        threading.Timer(0.05, file.may_write.set).start()
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write(pieces(), file)
    assert file.getvalue() == b"a" * PIECE_BYTES


@pytest.mark.parametrize("num_pieces", [1, 2, 3])
def test_a_full_disk_is_the_streams_error(num_pieces):
    """A write that fails is reported, whichever it was."""

    class Full(io.BytesIO):
        def writelines(self, lines):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write(several(*[b"x" * PIECE_BYTES] * num_pieces), Full())


def test_a_refused_write_writes_no_more():
    """What is asked before each write may end the stream."""
    file, asked = io.BytesIO(), []

    def check():
        asked.append(1)
        if len(asked) == 2:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write(several(*[b"x" * PIECE_BYTES] * 3), file, check)
    assert len(file.getvalue()) == PIECE_BYTES
