"""Pre-train ``builtin:tiny-encoder``: a small BERT on generated text, by guessing masked words and matching stories.

``python -m slimfed.clients.builtin.pretrain_encoder --out FOLDER`` makes the folder that is shipped.
"""

import argparse
import sys
from collections.abc import Callable

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from slimfed.clients.builtin.pretraining import Batch, arguments, line_batches, optimise, pad, save
from slimfed.clients.builtin.prose import prose, retellings

VOCABULARY = 1200
POSITIONS = 128
_MASKED = 0.2
_TEMPERATURE = 0.05
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


def mask(batch: Batch, mask_id: int, vocabulary: int, generator: torch.Generator) -> Batch:
    """Add the targets of masked-language modelling (BERT, arXiv 1810.04805, section 3.1), with a share of 20%.

    Of the tokens to be guessed 80% are masked, 10% replaced by a random token, 10% left as they are.
    """
    ids = batch["input_ids"]
    special = len(_SPECIAL)
    chosen = (torch.rand(ids.shape, generator=generator) < _MASKED) & (ids >= special)
    kind = torch.rand(ids.shape, generator=generator)
    noise = torch.randint(special, vocabulary, ids.shape, generator=generator)
    masked = torch.where(chosen & (kind < 0.8), mask_id, torch.where(chosen & (kind >= 0.9), noise, ids))
    return {**batch, "input_ids": masked, "labels": torch.where(chosen, ids, -100)}


def masked_loss(model: BertForMaskedLM, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the masked tokens; the vocabulary is only computed where a token is masked."""
    hidden = model.bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    chosen = batch["labels"] != -100
    return functional.cross_entropy(model.cls.predictions(hidden[chosen]), batch["labels"][chosen])


def contrast_loss(
    model: BertForMaskedLM, told: Batch, others: Batch, events: torch.Tensor, other_events: torch.Tensor
) -> torch.Tensor:
    """Which of ``others`` tells the same event? Mean cross-entropy over ``told`` (InfoNCE, as in arXiv 2104.08821).

    ``others`` are the retellings, then the contrary tellings, [2 * batch]; sentences are compared by the cosine of
    their [CLS] vectors. ``events`` [batch] and ``other_events`` [2 * batch]: a sentence of another row about the same
    kind of event is no wrong answer and is left out.
    """
    anchors, candidates = (
        functional.normalize(model.bert(**b).last_hidden_state[:, 0], dim=-1) for b in (told, others)
    )
    scores = anchors @ candidates.T / _TEMPERATURE
    own = torch.eye(*scores.shape, dtype=torch.bool)
    alike = (events[:, None] == other_events) & ~own
    return functional.cross_entropy(scores.masked_fill(alike, float("-inf")), torch.arange(len(events)))


def main() -> None:
    """Generate, tokenise, train, save."""
    args = arguments(__doc__ or "", steps=3500)
    torch.manual_seed(args.seed)
    texts = prose(args.lines)
    tokenizer = train_tokenizer(texts)
    model = build(len(tokenizer))
    masked, contrasted = _masked_words(model, tokenizer, texts, args), _contrasts(model, tokenizer, args)
    loss = optimise(model, lambda: masked() + contrasted(), args.steps, args.learning_rate)
    save(model, tokenizer, args.out)
    print(f"{args.out}: {sum(p.numel() for p in model.parameters())} parameters, loss {loss:.4f}", file=sys.stderr)


def _masked_words(
    model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, texts: list[str], args: argparse.Namespace
) -> Callable[[], torch.Tensor]:
    lines = tokenizer(texts, truncation=True, max_length=POSITIONS)["input_ids"]
    batches = line_batches(lines, args.batch_size, args.seed)
    generator = torch.Generator().manual_seed(args.seed)

    def loss() -> torch.Tensor:
        batch = pad([lines[i] for i in next(batches)], tokenizer.pad_token_id)
        return masked_loss(model, mask(batch, tokenizer.mask_token_id, len(tokenizer), generator))

    return loss


def _contrasts(
    model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace
) -> Callable[[], torch.Tensor]:
    stories = retellings(args.lines)
    told, retold, contrary = (
        tokenizer([getattr(story, name) for story in stories])["input_ids"] for name in ("told", "retold", "contrary")
    )
    events, contrary_events = (
        torch.tensor([getattr(story, name) for story in stories]) for name in ("event", "contrary_event")
    )
    batches = line_batches(told, args.batch_size // 2, args.seed + 1)

    def loss() -> torch.Tensor:
        rows = next(batches)
        anchors = pad([told[i] for i in rows], tokenizer.pad_token_id)
        others = pad([column[i] for column in (retold, contrary) for i in rows], tokenizer.pad_token_id)
        return contrast_loss(model, anchors, others, events[rows], torch.cat([events[rows], contrary_events[rows]]))

    return loss


if __name__ == "__main__":
    main()
