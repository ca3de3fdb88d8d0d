"""Rating predictors: means, biases, matrix factorisation, and language models that reason first."""
