"""Speed as ratios: the receiver against a bare echo on the same wire, in the same run."""
