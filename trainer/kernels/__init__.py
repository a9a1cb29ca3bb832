"""Functions of our own where the libraries' cost too much memory or time."""
