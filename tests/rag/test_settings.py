"""Settings: what is read from where, and what is said of those that are wrong."""

import pytest

from indexes.errors import ChangeRequest
from rag.settings import load_settings, secret


@pytest.mark.parametrize(("given", "key"), [("  ", None), ("\n", None), (" sesame\r\n", "sesame"), ("a b", "a b")])
def test_the_key_is_read_as_that_of_a_request_is(tmp_path, given, key):
    file = tmp_path / "rag.toml"
    file.write_text("[server]\napi_key = " + '"' + given.encode("unicode_escape").decode() + '"')
    for settings in (load_settings(environment={"RAG_API_KEY": given}), load_settings(file, environment={})):
        assert secret(settings.server.api_key) == key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("embeder = 'x'", "no setting embeder .*rag.toml.* Did you mean embedder"),
        ("port = 1", "no setting port .* server.port"),
        ("[server]\nprot = 1", "no setting server.prot .* server.port"),
        ("[retrieval]\nchunk_tokens = 1", "ingest.chunk_tokens"),
        ("zzz = 1", "no setting zzz .*rag doctor"),
    ],
)
def test_a_setting_that_nobody_knows_is_told_with_those_like_it(tmp_path, text, said):
    file = tmp_path / "rag.toml"
    file.write_text(text)
    with pytest.raises(ChangeRequest, match=said) as caught:
        load_settings(file, environment={})
    assert caught.value.code == "bad_settings"
