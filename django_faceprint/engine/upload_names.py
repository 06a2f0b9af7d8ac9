"""Names for the uploads of one visit, recorded before anything is written under them."""

from __future__ import annotations

from collections.abc import Sequence

from django_faceprint.base.db_thread import Database
from django_faceprint.evidence import files


class UploadNames:
    """Reserved names of one session. A name serves one upload and is never used again.

    *names* were reserved when the session was claimed; :meth:`take` reserves more when they are used up.
    """

    def __init__(self, session_pk: int, database: Database, names: Sequence[str] = ()) -> None:
        self._session_pk = session_pk
        self._database = database
        self._names = list(names)

    def reserve(self, count: int) -> None:
        """Have *count* names at least, in one statement."""
        missing = count - len(self._names)
        if missing > 0:
            self._names += self._database(lambda: files.reserve_names(self._session_pk, missing))

    def take(self) -> str:
        """A name for one upload."""
        self.reserve(1)
        return self._names.pop()

    def take_unused(self) -> list[str]:
        """The names that no upload has used: no file lies under them."""
        unused, self._names = self._names, []
        return unused
