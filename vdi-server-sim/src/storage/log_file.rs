//! Log files: virtual log files, checkpoints.
