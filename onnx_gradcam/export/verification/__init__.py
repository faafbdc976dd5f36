"""Proves an exported file: structure, outputs, and the gradient against central differences."""
