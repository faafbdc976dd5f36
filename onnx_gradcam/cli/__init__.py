"""The command line: click, one small file a command, no logic. The entry point is `cli.main`."""
