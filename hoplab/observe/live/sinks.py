"""Where captured packets go: a pcapng file or pipe, or lines on the screen."""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from hoplab import __version__
from hoplab.core.fs import file_errors, growing
from hoplab.observe.live import pcapng, summary
from hoplab.observe.live.pcap_stream import Record
from hoplab.observe.live.pcapng import Interface


class OutputClosed(Exception):
    """Nobody reads the output any more: Wireshark, or `head`, has ended."""


def nobody_reads(out: IO[bytes] | IO[str]) -> bool:
    """Return whether the other end of a pipe is closed: so a capture without packets ends with Wireshark, too."""
    poll = select.poll()
    try:
        poll.register(out.fileno(), 0)
    except (OSError, ValueError):  # not a file of the system
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


@dataclass(frozen=True)
class Statistics:
    """What one capture counted in all."""

    began: int  # nanoseconds since 1970
    ended: int
    received: int  # packets that passed the filter
    dropped: int  # ... of which the kernel dropped so many, because they were read too slowly


class Sink(Protocol):
    """A consumer of packets. Interfaces have numbers from 0, in the order of `begin`."""

    def begin(self, interfaces: Sequence[Interface]) -> None: ...

    def packet(self, number: int, time: int, record: Record) -> None: ...

    def flush(self) -> None: ...

    def end(self, statistics: Mapping[int, Statistics]) -> None: ...

    def close(self) -> None: ...


class PcapngSink:
    """A pcapng file, which can be read while it grows; it exists from the moment at which all captures run."""

    def __init__(self, file: Path | IO[bytes]) -> None:
        """Take the path of the file, or a stream that is open already."""
        self._file = file
        self._out: IO[bytes] | None = None

    def begin(self, interfaces: Sequence[Interface]) -> None:
        if isinstance(self._file, Path):
            self._out = growing(self._file)
        else:
            self._out = self._file
        self._write(pcapng.section(f"hoplab {__version__}"), *map(pcapng.interface, interfaces))
        self.flush()

    def packet(self, number: int, time: int, record: Record) -> None:
        self._write(pcapng.packet(number, time, record.data, record.size))

    def end(self, statistics: Mapping[int, Statistics]) -> None:
        self._write(
            *(
                pcapng.statistics(number, found.began, found.ended, found.received, found.dropped)
                for number, found in statistics.items()
            )
        )
        self.flush()

    def _write(self, *blocks: bytes) -> None:
        self._guarded(lambda out: out.write(b"".join(blocks)))

    def flush(self) -> None:
        """Write what is held back; raise OutputClosed where nobody reads it."""
        self._guarded(lambda out: out.flush())
        if self._out and nobody_reads(self._out):
            raise OutputClosed

    def _guarded(self, work: Callable[[IO[bytes]], object]) -> None:
        """Do something with the output; raise OutputClosed where nobody reads it, FileError where the disk is full."""
        assert self._out
        with file_errors(self._file if isinstance(self._file, Path) else Path("-")):
            try:
                work(self._out)
            except BrokenPipeError:
                raise OutputClosed from None

    def close(self) -> None:
        """Close the file; a stream that was open before stays open."""
        if self._out and isinstance(self._file, Path):
            with suppress(OSError):  # what could not be written was reported when it was
                self._out.close()


class ScreenSink:
    """A line for each packet."""

    def __init__(self, echo: Callable[[str], None], places: Sequence[str], out: IO[str] | None = None) -> None:
        """Take what prints a line, the short names of the places, by number, and the file that is printed to."""
        self._echo = echo
        self._out = out
        width = max(map(len, places), default=0)
        self._places = [f"{place:<{width}}" for place in places]
        self._link_types: list[int] = []

    def begin(self, interfaces: Sequence[Interface]) -> None:
        self._link_types = [interface.link_type for interface in interfaces]

    def packet(self, number: int, time: int, record: Record) -> None:
        try:
            self._echo(summary.line(self._places[number], time, record, self._link_types[number]))
        except BrokenPipeError:
            raise OutputClosed from None

    def flush(self) -> None:
        """Raise OutputClosed where nobody reads the lines, which are written at once."""
        if self._out and nobody_reads(self._out):
            raise OutputClosed

    def end(self, statistics: Mapping[int, Statistics]) -> None:
        """Do nothing: the caller prints the numbers."""

    def close(self) -> None:
        """Do nothing: the screen stays."""
