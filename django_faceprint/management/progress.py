"""One line of a terminal that says how far a command has come; nothing where there is no terminal."""

from __future__ import annotations

from django.core.management.base import OutputWrapper

BAR = 30


class ProgressLine:
    """Writes over itself; to be cleared before anything else is printed."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out
        #: Whether anybody sees it.
        self.is_shown = bool(out.isatty())

    def show(self, text: str) -> None:
        """Say this in place of what was said before."""
        if self.is_shown:
            self._out.write(f"\r{text}\x1b[K", ending="")
            self._out.flush()

    def show_part(self, done: int, whole: int, text: str = "") -> None:
        """A bar and figures, and *text* behind them. *whole* may turn out to be too small."""
        whole = max(whole, done, 1)
        full = BAR * done // whole
        self.show(f"[{'#' * full}{'.' * (BAR - full)}] {done}/{whole}  {text}".rstrip())

    def clear(self) -> None:
        """Leave an empty line."""
        self.show("")
