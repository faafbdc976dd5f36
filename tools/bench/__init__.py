"""What `tools/benchmark.py` is made of, in reading order.

`subjects` lists the models and which module of the torch network is the target layer, `contestants`
who is measured. `protocol` is what the driver and a worker process say to each other, `worker` the
worker's side of it; `ort_engines`, `torch_engines` (with `torch_nets`), `openvino_engine` and
`onnx_ad_engine` are loaded by workers alone. `files` makes what they load. `session` runs one
model, `results` holds what was measured, `statistics` makes intervals of it, `compare` says what
changed since an older run, `page` and `chart` write what people read.
"""
