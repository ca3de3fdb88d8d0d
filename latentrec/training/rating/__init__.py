"""RecZero and RecOne: pre-training of the placeholder model, reasoning traces, cold start, GRPO."""
