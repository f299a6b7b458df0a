"""What a pattern matches."""

import pytest

from hub.arguments.patterns import name_matcher

NAMES = [
    "model.layers.1.self_attn.q_proj",
    "model.layers.10.self_attn.q_proj",
    "model.layers.1.mlp.up_proj",
    "lm_head",
]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("q_proj", [0, 1]),
        ("attn", [0, 1]),
        ("layers.1", [0, 2]),
        ("1.mlp", [2]),
        ("0.self_attn", [1][:0]),
        ("10.self_attn", [1]),
        ("lm_head", [3]),
        (r".*\.mlp\..*", [2]),
        (r".*.attn.*", [0, 1]),
        (r"layers\.1\..*", []),
        (r".*", [0, 1, 2, 3]),
        (r".*(q|up)_proj", [0, 1, 2]),
    ],
)
def test_plain_names_are_found_anywhere_and_expressions_match_the_whole(pattern, found):
    matches = name_matcher(pattern, "test")
    assert [name for name in NAMES if matches(name)] == [NAMES[i] for i in found]
