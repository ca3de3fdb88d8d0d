"""The weights of a saved model, and whether two hold the same bits."""

from safetensors.numpy import load_file


def weights(directory):
    return load_file(directory / "model.safetensors")


def same(first, second):
    return all((first[name] == second[name]).all() for name in first) and first.keys() == second.keys()
