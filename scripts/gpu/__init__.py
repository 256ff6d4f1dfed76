"""The parts of `scripts.gpu_check`: what is looked at on a GPU."""
