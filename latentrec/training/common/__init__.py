"""What the trainers of all families share: checkpoints, resume, early stopping, progress, metric loggers."""
