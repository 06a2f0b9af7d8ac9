"""A progress line in a terminal; without a terminal nothing is shown."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from django.core.management.base import OutputWrapper

BAR = 30


class ProgressLine:
    """A line that overwrites itself. Clear it before printing anything else; leaving ``with`` does so too."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out
        #: Whether the output is a terminal.
        self.is_shown = bool(out.isatty())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Replace the line by *text*."""
        if self.is_shown:
            self._out.write(f"\r{text}\x1b[K", ending="")
            self._out.flush()

    def show_part(self, done: int, whole: int, text: str = "") -> None:
        """Show a bar, ``done/whole`` and *text*. *whole* may turn out to be too small."""
        whole = max(whole, done, 1)
        full = BAR * done // whole
        self.show(f"[{'#' * full}{'.' * (BAR - full)}] {done}/{whole}  {text}".rstrip())

    def clear(self) -> None:
        """Empty the line."""
        self.show("")
