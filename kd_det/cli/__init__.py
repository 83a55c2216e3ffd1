"""The command line ``kd-det``: one file a command, and :mod:`.main` with the table of them."""
