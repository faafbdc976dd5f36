"""A Triton model repository for an exported file.

In the order of reading: `tensors` says what Triton would see of the file, `batching` whether its
scheduler may put requests together, `text` writes protobuf as text, `config` is config.pbtxt, and
`repository` puts the folder on disk.
"""
