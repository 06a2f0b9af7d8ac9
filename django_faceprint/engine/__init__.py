"""The deadline engine: claims what is due, asks Baidu, archives, settles."""
