"""Starting, adopting and returning from a verification."""
