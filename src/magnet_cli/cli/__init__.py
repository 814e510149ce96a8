"""The command line: the one room that knows flags, typer and the console."""
