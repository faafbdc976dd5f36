"""Quantized models: which integers carry gradients, which layer and score they have."""
