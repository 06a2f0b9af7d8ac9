"""What keeps an installation healthy: diagnosis, key rotation, retention."""
