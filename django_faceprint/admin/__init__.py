"""The record console (记录查询), plans, alerts (数据报警) and logs inside Django's admin.

Registered here are the models that people work with. Technical tables (tokens, heartbeats, upload
intents, raw answers) have no page of their own.
"""

from . import alerts, dashboard, erasing, jobs, logs, plans, sessions

__all__ = ["alerts", "dashboard", "erasing", "jobs", "logs", "plans", "sessions"]
