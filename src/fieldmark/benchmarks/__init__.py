"""Speed against the peers, both sides in the same run: ``fieldmark bench``. Results lie in the folder benchmarks/."""
