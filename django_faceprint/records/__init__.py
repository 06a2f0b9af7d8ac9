"""Questions about many records: filters, lookup, statistics, roll-ups, forecast."""
