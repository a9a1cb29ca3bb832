"""The embedded engine: a Dagger session on plain BuildKit."""
