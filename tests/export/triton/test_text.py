from __future__ import annotations

from onnx_gradcam.export.triton.text import Word, to_text
from tests.export.triton.schema import parsed

NASTY = 'quote " backslash \\ newline \n tab \t return \r bell \a delete \x7f ü 魚 {"a": [1]}'


def test_a_message_reads_as_people_write_it() -> None:
    message = {
        "name": "m",
        "max_batch_size": 8,
        "input": [{"name": "a", "data_type": Word("TYPE_FP32"), "dims": [3, -1]}, {"name": "b"}],
        "output": [],
        "dynamic_batching": {},
        "version_policy": {"latest": {"num_versions": 1}},
    }
    assert to_text(message) == (
        'name: "m"\n'
        "max_batch_size: 8\n"
        "input: [\n"
        "  {\n"
        '    name: "a"\n'
        "    data_type: TYPE_FP32\n"
        "    dims: [ 3, -1 ]\n"
        "  },\n"
        "  {\n"
        '    name: "b"\n'
        "  }\n"
        "]\n"
        "output: [ ]\n"
        "dynamic_batching: { }\n"
        "version_policy: {\n"
        "  latest: {\n"
        "    num_versions: 1\n"
        "  }\n"
        "}\n"
    )


def test_protobuf_reads_what_is_written() -> None:
    message = {
        "name": NASTY,
        "input": [{"name": NASTY, "data_type": Word("TYPE_BOOL"), "optional": True}],
        "output": [{"name": "o", "dims": [1], "reshape": {"shape": []}}],
        "dynamic_batching": {},
        "parameters": [{"key": NASTY, "value": {"string_value": NASTY}}],
    }
    config = parsed(to_text(message))
    assert config.name == config.input[0].name == NASTY
    assert config.input[0].optional is True
    assert config.input[0].data_type == 1
    assert list(config.output[0].dims) == [1]
    assert config.output[0].HasField("reshape")
    assert list(config.output[0].reshape.shape) == []
    assert config.HasField("dynamic_batching")
    assert not config.HasField("version_policy")
    assert {e.key: e.value.string_value for e in config.parameters} == {NASTY: NASTY}
