"""What the encoding routes take, one file per service whose clients they serve."""
