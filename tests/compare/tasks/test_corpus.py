from itertools import islice

import pytest
import torch

from hub.compare.tasks import corpus
from hub.errors import HubError


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(range(100)) * 4)
    return corpus.load(path, 20)


def test_the_end_is_held_out(text):
    assert (len(text.training), len(text.held_out)) == (360, 40)
    assert text.training + text.held_out == bytes(range(100)) * 4


def test_the_default_text_is_there():
    text = corpus.load(None, 128)
    assert len(text.training) > 100_000
    assert b"class" in text.held_out


def test_training_batches_depend_on_the_seed_alone(text):
    first, second, other = (
        list(islice(corpus.training_batches(text, 3, 20, seed), 5)) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert first[0].shape == (3, 20)
    assert bytes(first[0][0].tolist()) in text.training


def test_evaluation_batches_cover_the_held_out_text(text):
    (batch,) = corpus.evaluation_batches(text, 3, 20)
    assert [bytes(window) for window in batch.tolist()] == [text.held_out[:20], text.held_out[20:]]


def test_evaluation_batches_are_few():
    text = corpus.Corpus("", b"", bytes(10_000))
    batches = list(corpus.evaluation_batches(text, 2, 10))
    assert [len(batch) for batch in batches] == [2] * corpus.EVALUATION_BATCHES


def test_too_short_a_text_names_the_length_it_takes(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("a" * 199)
    with pytest.raises(HubError, match="199 bytes") as caught:
        corpus.load(path, 20)
    assert "200 bytes" in caught.value.fix
    path.write_text("a" * 200)
    assert len(corpus.load(path, 20).held_out) == 20


def test_other_than_utf8_is_refused(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"abc\xff" * 100)
    with pytest.raises(HubError, match="byte 3"):
        corpus.load(path, 20)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(HubError, match="cannot be read"):
        corpus.load(tmp_path / "none.txt", 20)
