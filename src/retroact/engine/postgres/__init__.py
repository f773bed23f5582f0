"""Functions as transactions on a Postgres server, recorded there."""
