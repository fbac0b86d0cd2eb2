"""The command line: one file of flags for each command. What a command does is in `inf_stream.app` and `server`."""
