"""Small tokenizers of the kinds that are not byte-level, and what every trimmed one must keep."""

from functools import cache

import numpy as np
from byte_level import HARD
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from slimfed.clients.builtin.commands import commands

_BYTES = [f"<0x{number:02X}>" for number in range(256)]


def text() -> list[str]:
    """What the tokenizers are made of."""
    return [*(row.text for row in commands()[0][:400]), *HARD * 3]


@cache
def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    """Merges of characters, bytes for others, spaces as a character: Llama 2 and Gemma."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False)
    trained.train_from_iterator([row.text for row in commands()[0][:400]], trainer)
    made = trained.get_vocab(with_added_tokens=False)
    learnt = sorted(made, key=made.__getitem__)
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    names = [*special, *_BYTES, *(token for token in learnt if token not in special)]
    vocabulary = {name: index for index, name in enumerate(names)}
    made_of = [token for token in names[len(special) + 256 :] if len(token) > 1]
    merges = [  # every way to make a token of two, as transformers writes a SentencePiece model
        (token[:cut], token[cut:])
        for token in made_of
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    inner = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    inner.normalizer = normalizers.Replace(" ", "\u2581")
    inner.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    inner.add_tokens([AddedToken("<turn>", normalized=False)])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@cache
def unigram() -> PreTrainedTokenizerFast:
    """The most probable pieces: multilingual encoders."""
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=special, unk_token="<unk>", initial_alphabet=[], show_progress=False
    )
    inner.train_from_iterator(text(), trainer)
    ends = [("<s>", 0), ("</s>", 2)]
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def ids(words: PreTrainedTokenizerFast, said: str) -> list[int]:
    return words(said)["input_ids"]


def pieces(words: PreTrainedTokenizerFast, said: str) -> list[str]:
    return words.convert_ids_to_tokens(ids(words, said))


def written(words: PreTrainedTokenizerFast, said: str) -> str:
    """A text that went through the tokenizer, with its special tokens."""
    return words.decode(ids(words, said), clean_up_tokenization_spaces=False)


def used(words: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    return np.unique([token for said in texts for token in ids(words, said)])
