"""The HTTP surface: routes, schemas, error answers, event streams."""
