"""数据报警: conditions that are evaluated every minute, incidents, and the mails they cause."""
