"""Alembic's entry point for its command line; the service migrates through `rag.catalog.database.migrate`."""
