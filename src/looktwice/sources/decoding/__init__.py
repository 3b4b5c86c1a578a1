"""Decode the bytes of one file to upright RGB; formats whose decoders may crash or hang run in a child process."""
