"""The gradient builders: onnxruntime-training in a process of its own, and the built-in reverse."""
