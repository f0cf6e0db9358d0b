"""The rollback agent: flags, commands, flag backends, control and the command line."""
