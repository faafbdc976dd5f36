"""Export: rewrite an ONNX graph so that it also outputs A and dy^c/dA.

Reading order: `pipeline` (the steps), `model_file`, `graph`, `score`, `target_layer`, `tail`,
`builders`, `attach`, `verify`.
"""
