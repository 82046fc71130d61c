"""Pre-train ``builtin:tiny-encoder``: a small BERT on generated text, by guessing masked tokens.

``python -m slimfed.clients.builtin.pretrain_encoder --out FOLDER`` makes the folder that is shipped.
"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from slimfed.clients.builtin.pretraining import arguments, line_batches, masker, optimise, save
from slimfed.clients.builtin.prose import prose

VOCABULARY = 1200
POSITIONS = 128
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """An uncased WordPiece tokenizer with BERT's special tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        special_tokens=_SPECIAL,
        initial_alphabet=[chr(c) for c in range(33, 127)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=POSITIONS,
    )


def build(vocabulary: int) -> BertForMaskedLM:
    """The untrained model."""
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=POSITIONS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    return BertForMaskedLM(config)


def main() -> None:
    """Generate, tokenise, train, save."""
    args = arguments(__doc__ or "", steps=8000)
    torch.manual_seed(args.seed)
    texts = prose(args.lines)
    tokenizer = train_tokenizer(texts)
    lines = tokenizer(texts, truncation=True, max_length=POSITIONS)["input_ids"]
    model = build(len(tokenizer))
    batches = masker(
        line_batches(lines, args.batch_size, tokenizer.pad_token_id, args.seed),
        tokenizer.mask_token_id,
        len(tokenizer),
        len(_SPECIAL),
        args.seed,
    )
    loss = optimise(model, batches, args.steps, args.learning_rate)
    save(model, tokenizer, args.out)
    print(f"{args.out}: {sum(p.numel() for p in model.parameters())} parameters, loss {loss:.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
