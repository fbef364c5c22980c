"""What is measured, against a limit or a peer: `make bench`."""
