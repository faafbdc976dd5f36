"""ONNX's reference operators, corrected where onnxruntime differs: the float64 second opinion."""
