"""Long work that a person asked for: exports, bundles, bulk actions."""
