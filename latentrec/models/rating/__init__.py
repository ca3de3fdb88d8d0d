"""Rating predictors: means, biases, matrix factorization, and language models that reason first."""
