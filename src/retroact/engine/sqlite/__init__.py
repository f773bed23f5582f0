"""The embedded engine: SQLite through apsw. The only package that knows that driver."""
