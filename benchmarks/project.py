"""The Django project of a benchmark's own process and of the processes that it starts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Self

VARIABLE = "FACEPRINT_BENCHMARK"
#: The product's default.
CONCURRENCY = 8


@dataclass(frozen=True)
class Project:
    """The differences between runs.

    ``database`` is an entry of Django's DATABASES, ``archive`` the folder of the encrypted files.
    ``authorities`` is a file of certificates in place of certifi's; "" leaves that.
    """

    database: dict[str, Any]
    archive: str
    api_url: str = "http://127.0.0.1:9"
    authorities: str = ""
    concurrency: int = CONCURRENCY
    broker: str = "memory://"
    #: Whether files are encrypted; off only to compare with.
    encrypts: bool = True
    #: Numbers of fixed keys, the newest first.
    encryption_keys: tuple[int, ...] = (1,)
    index_keys: tuple[int, ...] = (2,)

    @property
    def is_on_postgresql(self) -> bool:
        """Whether the database is PostgreSQL."""
        return str(self.database["ENGINE"]).endswith("postgresql")

    @classmethod
    def from_environment(cls) -> Self:
        """The project that the starting process describes."""
        return cls(**json.loads(os.environ[VARIABLE]))

    def environment(self) -> dict[str, str]:
        """Environment variables for a process of this project."""
        return {
            **os.environ,
            VARIABLE: json.dumps(asdict(self)),
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
        }

    def set_up(self) -> None:
        """Set Django up for this project in this process."""
        os.environ.update(self.environment())
        set_up()


def use_database(entry: dict[str, Any]) -> None:
    """Use another database from now on, also one of another kind."""
    from django.db import DEFAULT_DB_ALIAS, connections

    connections.close_all()
    connections.settings = connections.configure_settings({DEFAULT_DB_ALIAS: dict(entry)})
    del connections[DEFAULT_DB_ALIAS]


def set_up() -> None:
    """Set Django up for the project that the environment describes."""
    project = Project.from_environment()
    if project.authorities:
        # Before requests is imported, which reads the path once. No setting of the product weakens TLS, so
        # that trusting the benchmark's own authority takes replacing the list itself.
        import certifi

        certifi.where = lambda: project.authorities
    import django

    django.setup()
