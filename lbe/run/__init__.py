"""A run: its workdir, identity, checkpoints and metrics."""
