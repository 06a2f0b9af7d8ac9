"""Baidu as this project is configured to use it: clients, rate limit, access tokens, errors."""
