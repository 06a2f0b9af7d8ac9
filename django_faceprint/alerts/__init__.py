"""数据报警: conditions that are evaluated every minute, alerts, and the mails they cause."""
