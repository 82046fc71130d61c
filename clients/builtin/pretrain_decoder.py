"""Pre-train ``builtin:tiny-decoder``: a small Llama with grouped queries on generated text, by next-token prediction.

``python -m slimfed.clients.builtin.pretrain_decoder --out FOLDER`` makes the folder that is shipped.
"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from slimfed.clients.builtin.pretraining import Batch, arguments, line_batches, optimise, pad, save
from slimfed.clients.builtin.prose import prose

VOCABULARY = 1200
POSITIONS = 256
_SPECIAL = ["<pad>", "<s>", "</s>"]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that puts ``<s>`` first, as Llama's do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="right",
        model_max_length=POSITIONS,
    )


def build(vocabulary: int) -> LlamaForCausalLM:
    """The untrained model: four query heads share two key-value heads."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=384,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def next_token_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of each token given those before; the vocabulary is not computed for padding."""
    hidden = model.model(**batch).last_hidden_state[:, :-1]
    real = batch["attention_mask"][:, 1:].bool()
    return functional.cross_entropy(model.lm_head(hidden[real]), batch["input_ids"][:, 1:][real])


def main() -> None:
    """Generate, tokenise, train, save."""
    args = arguments(__doc__ or "", steps=5000)
    torch.manual_seed(args.seed)
    texts = prose(args.lines)
    tokenizer = train_tokenizer(texts)
    lines = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    model = build(len(tokenizer))
    batches = line_batches(lines, args.batch_size, args.seed)
    loss = optimise(
        model,
        lambda: next_token_loss(model, pad([lines[i] for i in next(batches)], tokenizer.pad_token_id)),
        args.steps,
        args.learning_rate,
    )
    save(model, tokenizer, args.out)
    print(f"{args.out}: {sum(p.numel() for p in model.parameters())} parameters, loss {loss:.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
