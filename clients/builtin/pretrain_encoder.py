"""Pre-train ``builtin:tiny-encoder``: a small BERT on generated text, by guessing masked words and outcomes.

``python -m slimfed.clients.builtin.pretrain_encoder --out FOLDER`` makes the folder that is shipped.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import BertConfig, BertForPreTraining, PreTrainedTokenizerFast

from slimfed.clients.builtin.pretraining import Batch, arguments, line_batches, optimise, pad, save
from slimfed.clients.builtin.prose import Line, prose

VOCABULARY = 1200
POSITIONS = 128
_MASKED = 0.2
_COMMON = 5e-3
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


def build(vocabulary: int) -> BertForPreTraining:
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
    return BertForPreTraining(config)


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


def masked_loss(model: BertForPreTraining, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the masked tokens; the vocabulary is only computed where a token is masked."""
    hidden = model.bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    chosen = batch["labels"] != -100
    return functional.cross_entropy(model.cls.predictions(hidden[chosen]), batch["labels"][chosen])


def outcome_loss(model: BertForPreTraining, told: Batch, outcome: Batch, weights: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the words of the outcome, all predicted from the pooled vector of what was told.

    This is FastSent (arXiv 1602.03483) with a transformer in front: it makes the pooled vector one of the sentence.
    ``weights`` [vocabulary] says how much a word counts.
    """
    scores = model.cls.predictions(model.bert(**told).pooler_output).log_softmax(-1)
    words = weights[outcome["input_ids"]]
    picked = scores.gather(1, outcome["input_ids"])
    return -(picked * words).sum() / words.sum()


def rare_words(lines: list[list[int]], vocabulary: int) -> torch.Tensor:
    """Weights a / (a + frequency), float32 [vocabulary] (SIF, Arora et al. 2017): "the" and "okay" hardly count."""
    counts = torch.bincount(torch.tensor([token for line in lines for token in line]), minlength=vocabulary)
    weights = _COMMON / (_COMMON + counts / counts.sum())
    weights[: len(_SPECIAL)] = 0.0
    return weights


def main() -> None:
    """Generate, tokenise, train, save."""
    args = arguments(__doc__ or "", steps=4000)
    torch.manual_seed(args.seed)
    lines = prose(args.lines)
    tokenizer = train_tokenizer([line.text for line in lines])
    model = build(len(tokenizer))
    loss = optimise(model, _two_tasks(model, tokenizer, lines, args), args.steps, args.learning_rate)
    save(model, tokenizer, args.out)
    print(f"{args.out}: {sum(p.numel() for p in model.parameters())} parameters, loss {loss:.4f}", file=sys.stderr)


def _two_tasks(
    model: BertForPreTraining, tokenizer: PreTrainedTokenizerFast, lines: list[Line], args: argparse.Namespace
) -> Callable[[], torch.Tensor]:
    """The loss of a step: masked words in all lines, and outcomes of half as many lines that have one."""
    encode = partial(tokenizer, truncation=True, max_length=POSITIONS)
    stories = [line for line in lines if line.outcome]
    whole = encode([line.text for line in lines])["input_ids"]
    told = encode([line.told for line in stories])["input_ids"]
    outcome = encode([line.outcome for line in stories])["input_ids"]
    batches = line_batches(whole, args.batch_size, args.seed)
    story_batches = line_batches(told, args.batch_size // 2, args.seed + 1)
    weights = rare_words(outcome, len(tokenizer))
    generator = torch.Generator().manual_seed(args.seed)

    def loss() -> torch.Tensor:
        batch = pad([whole[i] for i in next(batches)], tokenizer.pad_token_id)
        masked = mask(batch, tokenizer.mask_token_id, len(tokenizer), generator)
        chosen = next(story_batches)
        first, then = ([column[i] for i in chosen] for column in (told, outcome))
        return masked_loss(model, masked) + outcome_loss(
            model, pad(first, tokenizer.pad_token_id), pad(then, tokenizer.pad_token_id), weights
        )

    return loss


if __name__ == "__main__":
    main()
