"""The ``fieldmark`` command: thin, one file a subcommand, each imported when it is used."""
