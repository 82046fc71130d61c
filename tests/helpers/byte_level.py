"""Small byte-level BPE tokenizers that split a text as those of published models do, and texts that tell them apart."""

from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from slimfed.clients.builtin.commands import commands

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HARD = (
    "turn on the light",
    " leading",
    "   three  spaces  in",
    "trailing   ",
    " \n\n  newlines\r\n\ttabs \n",
    "1\n2\n\n3",
    "12345 6 7.89 1,234,567",
    "don't I'll WE'VE you're it'S",
    "caf\u00e9 na\u00efve \u00fcber",
    "\u4f60\u597d\uff0c\u4e16\u754c \u65e5\u672c\u8a9e",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 ok",
    "\u0661\u0662\u0663 \u00bd \u2167",
    "\u2028 \x85 \u00a0nbsp",
    "def f(x):\n    return x**2  # c\n\n\n",
    "a_b-c/d\\e $x == 'y' && z;",
    "HelloWorld XMLHttp iPhone",
    "</s> <s>",
)


@cache
def byte_level(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose rule llama.cpp calls ``kind``, of 600 tokens, with merges across all kinds of characters."""
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    rules = {
        "gpt-2": bytes_of_words,
        "smollm": pre_tokenizers.Sequence([digits, bytes_of_words]),
        "qwen2": _split(QWEN2),
        "smaug-bpe": _split(LLAMA3),
        "llama-bpe": _split(LLAMA3),
        "tekken": _split(TEKKEN),
        "unknown": _split(r"\p{N}{1,2}|\p{L}+|[^\p{L}\p{N}]+"),
    }
    inner = Tokenizer(models.BPE(ignore_merges=kind in ("llama-bpe", "tekken")))
    inner.pre_tokenizer, inner.decoder = rules[kind], decoders.ByteLevel()
    if kind == "qwen2":
        inner.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([*(row.text for row in commands()[0][:200]), *HARD * 5], trainer)
    if kind == "llama-bpe":
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def _split(rule: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(rule), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
