"""The access log and its chain refuse changes by whoever speaks to the database, on PostgreSQL and MySQL.

A row that is older than 1,095 days may be deleted, by the database's own clock; of the chain, the MAC alone may be
made anew. On MySQL, tests empty their tables with DELETE: a connection that sets ``@faceprint_emptying`` may.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import migrations
from django.db.utils import Error

logger = logging.getLogger(__name__)

LOG, CHAIN = "faceprint_accesslog", "faceprint_accessseal"
REFUSAL = "faceprint: the access log can only be added to"
#: What MySQL says when triggers need a privilege that the account lacks.
PRIVILEGE_MISSING = {1419, 1142, 1227}

POSTGRESQL = f"""
CREATE OR REPLACE FUNCTION faceprint_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = '{CHAIN}' THEN
        IF TG_OP = 'DELETE' THEN
            IF OLD.sealed_at < clock_timestamp() - interval '1095 days' THEN RETURN OLD; END IF;
        ELSIF (NEW.sequence, NEW.log_id, NEW.version, NEW.digest, NEW.sealed_at)
            = (OLD.sequence, OLD.log_id, OLD.version, OLD.digest, OLD.sealed_at) THEN RETURN NEW;
        END IF;
    ELSIF TG_OP = 'DELETE' THEN
        IF OLD.at < clock_timestamp() - interval '1095 days' THEN RETURN OLD; END IF;
    END IF;
    RAISE EXCEPTION '{REFUSAL}';
END $$;
CREATE TRIGGER faceprint_log_kept BEFORE UPDATE OR DELETE ON {LOG}
    FOR EACH ROW EXECUTE FUNCTION faceprint_append_only();
CREATE TRIGGER faceprint_chain_kept BEFORE UPDATE OR DELETE ON {CHAIN}
    FOR EACH ROW EXECUTE FUNCTION faceprint_append_only();
"""
POSTGRESQL_BACK = f"""
DROP TRIGGER IF EXISTS faceprint_log_kept ON {LOG};
DROP TRIGGER IF EXISTS faceprint_chain_kept ON {CHAIN};
DROP FUNCTION IF EXISTS faceprint_append_only();
"""

_REFUSE = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{REFUSAL}'"
_OLD = "< UTC_TIMESTAMP(6) - INTERVAL 1095 DAY OR @faceprint_emptying = 1"
_SAME = " AND ".join(f"NEW.{name} = OLD.{name}" for name in ("sequence", "log_id", "version", "digest", "sealed_at"))


def _trigger(name: str, event: str, table: str, allowed: str) -> str:
    return (
        f"CREATE TRIGGER faceprint_{name} BEFORE {event} ON {table} FOR EACH ROW "
        f"BEGIN IF NOT COALESCE({allowed}, FALSE) THEN {_REFUSE}; END IF; END"
    )


MYSQL = (
    _trigger("log_no_update", "UPDATE", LOG, "FALSE"),
    _trigger("log_no_delete", "DELETE", LOG, f"OLD.at {_OLD}"),
    _trigger("chain_no_update", "UPDATE", CHAIN, _SAME),
    _trigger("chain_no_delete", "DELETE", CHAIN, f"OLD.sealed_at {_OLD}"),
)
MYSQL_BACK = tuple(
    f"DROP TRIGGER IF EXISTS faceprint_{name}"
    for name in ("log_no_update", "log_no_delete", "chain_no_update", "chain_no_delete")
)


def create(apps: Any, editor: Any) -> None:
    """Create the triggers; where MySQL does not let us, say so and go on: the chain still tells."""
    if editor.connection.vendor == "postgresql":
        editor.execute(POSTGRESQL, None)
    elif editor.connection.vendor == "mysql":
        code = 0
        try:
            for statement in MYSQL:
                editor.execute(statement, None)
        except Error as error:
            code = error.args[0] if error.args else -1
            if code not in PRIVILEGE_MISSING:
                raise
        if code:
            logger.warning(
                "faceprint: no triggers for the access log (error %s): binary logging needs "
                "log_bin_trust_function_creators = 1, or an account with SUPER. Then migrate faceprint to 0001 "
                "and forward again.",
                code,
            )


def drop(apps: Any, editor: Any) -> None:
    """Take the triggers away."""
    if editor.connection.vendor == "postgresql":
        editor.execute(POSTGRESQL_BACK, None)
    elif editor.connection.vendor == "mysql":
        for statement in MYSQL_BACK:
            editor.execute(statement, None)


class Migration(migrations.Migration):
    """Triggers only."""

    dependencies = [("faceprint", "0001_initial")]
    operations = [migrations.RunPython(create, drop, atomic=False)]
