"""Models and tokenizers that transformers and llama.cpp read, and theirs that are read here."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from model import gguf_file, hf_tokenizer
from model.config import ModelConfig, model_config
from model.convert import (
    from_theirs,
    grow,
    initial_model,
    load_pretrained,
    load_weights,
    save_pretrained,
    save_weights,
    to_theirs,
)
from model.data import Samples
from model.families import family_of, read_config, write_config
from model.generate import generate, prompt_tokens
from model.likelihood import continuation_rows
from model.tokenizer import Tokenizer
from model.transformer import Transformer, frequencies
from tasks import tokenizer as tokenizers
from tasks.errors import UserError

BASE = {"vocab_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32,
        "intermediate_size": 56, "max_position_embeddings": 64}
GROUPED = {"num_key_value_heads": 2}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16,
          "low_freq_factor": 1.0, "high_freq_factor": 4.0}
THEIRS = {
    "gpt2": ("GPT2", {"vocab_size": 384, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4}),
    "llama": ("Llama", BASE | GROUPED),
    "llama tied, biased": ("Llama", BASE | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama linear": ("Llama", BASE | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "llama 3.1": ("Llama", BASE | GROUPED | {"rope_parameters": LLAMA3}),
    "mistral": ("Mistral", BASE | GROUPED | {"sliding_window": 9}),
    "qwen3": ("Qwen3", BASE | GROUPED | {"head_dim": 24}),
    "qwen3 window": ("Qwen3", BASE | GROUPED | {"head_dim": 24, "tie_word_embeddings": True, "sliding_window": 9,
                                                "use_sliding_window": True, "max_window_layers": 0}),
    "bert": ("Bert", BASE),
}


def theirs(name: str):
    """A transformers model with random weights everywhere (biases and norms start out as zeros and ones)."""
    import transformers
    kind, config = THEIRS[name]
    head = {"GPT2": "LMHeadModel", "Bert": "ForMaskedLM"}.get(kind, "ForCausalLM")
    torch.manual_seed(0)
    model = getattr(transformers, kind + head)(getattr(transformers, kind + "Config")(**config)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.15)
    return model


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["the mill grinds grain, and the river doesn't 123 mind\n\n  " * 5, "Der Müller zählt 4567 Säcke; größer. "]
    encoding = tokenizers.train(texts, 330)
    return Tokenizer("trained", encoding, encoding.eot_token, dict(encoding._special_tokens), encoding.n_vocab, "")


@pytest.mark.parametrize("name", THEIRS)
@torch.no_grad()
def test_logits_are_those_of_transformers_both_ways(name, tmp_path, tokenizer):
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
    model = theirs(name)
    model.save_pretrained(tmp_path / "theirs")
    config, weights = load_pretrained(tmp_path / "theirs")
    ours = Transformer(config).eval()
    ours.load_state_dict(weights)
    tokens = torch.randint(0, 320, (3, 50))
    expected = model(tokens).logits
    torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=1e-6)

    save_pretrained(tmp_path / "ours", weights, config, tokenizer)
    kind = AutoModelForCausalLM if config.causal else AutoModelForMaskedLM
    again = kind.from_pretrained(tmp_path / "ours").eval()
    assert type(again) is type(model)
    torch.testing.assert_close(again(tokens).logits, expected, rtol=0, atol=1e-6)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
    assert AutoConfig.from_pretrained(tmp_path / "ours").model_type == family_of(config)
    assert not list((tmp_path / "ours").glob("*.bin"))
    text = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert text.eos_token_id == tokenizer.eot
    assert text("the mill")["input_ids"] == ([tokenizer.eot] if config.causal else []) + tokenizer.encode("the mill")
    assert text.mask_token_id == (None if config.causal else tokenizer.n_vocab)
    if config.causal:
        prompt = torch.tensor([[tokenizer.eot, *tokenizer.encode("the mill")]])
        answer = again.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1]:].tolist()
        mine = list(generate(ours, prompt[0].tolist(), 12, n_vocab=384, temperature=0.0,
                             stop=frozenset({tokenizer.eot, tokenizer.special["<|end|>"]})))
        assert answer[:len(mine)] == mine and mine


@torch.no_grad()
def test_bert_with_padding_and_sentences_is_that_of_transformers():
    model = theirs("bert")
    config = read_config(model.config.to_dict(), "config.json")
    ours = Transformer(config).eval()
    ours.load_state_dict(from_theirs(model.state_dict(), config, "bert"))
    tokens, seen = torch.randint(0, 384, (2, 20)), torch.ones(2, 20, dtype=torch.int64)
    seen[1, 13:] = 0
    types = (torch.arange(20) > 7).long().expand(2, 20)
    expected = model(tokens, attention_mask=seen, token_type_ids=types).logits
    found = ours(tokens, segments=seen - 1, token_types=types)
    torch.testing.assert_close(found[seen == 1], expected[seen == 1], rtol=0, atol=1e-6)


def test_old_files_of_bert_are_read_and_strange_ones_refused():
    model = theirs("bert")
    config = read_config(model.config.to_dict(), "config.json")
    state = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
             for name, tensor in model.state_dict().items()}
    state |= {"bert.pooler.dense.weight": torch.zeros(2, 2), "cls.seq_relationship.bias": torch.zeros(2)}
    found = from_theirs(state, config, "bert")
    assert torch.equal(found["embedding_norm.weight"], model.state_dict()["bert.embeddings.LayerNorm.weight"])
    assert set(found) == set(Transformer(config).state_dict())
    with pytest.raises(UserError, match="adapter.weight has no place"):
        from_theirs(state | {"adapter.weight": torch.zeros(1)}, config, "bert")
    del state["cls.predictions.bias"]
    with pytest.raises(UserError, match="no tensor cls.predictions.bias; a BertForMaskedLM is needed"):
        from_theirs(state, config, "bert")


@pytest.mark.parametrize(("change", "says"), [
    ({"model_type": "mamba"}, "model_type 'mamba' is not known here; there are gpt2"),
    ({"hidden_act": "relu"}, "hidden_act 'relu' is not computed here"),
    ({"model_type": "bert", "tie_word_embeddings": False}, "tie_word_embeddings False is not computed here"),
    ({"model_type": "gpt2", "scale_attn_weights": False}, "scale_attn_weights False is not computed here"),
    ({"mlp_bias": True}, "mlp_bias True"), ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type 'yarn'"),
    ({"model_type": "mistral", "sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]}, "mixed")])
def test_what_is_not_computed_here_is_refused(change, says):
    with pytest.raises(UserError, match=says):
        read_config(BASE | {"model_type": "llama"} | change, "config.json")


def test_what_nobody_else_computes_is_not_exported():
    with pytest.raises(UserError, match="none of gpt2, llama"):
        family_of(model_config("gpt2-tiny", tied=False))
    with pytest.raises(UserError, match="none of gpt2, llama"):
        family_of(model_config("tiny", norm_place="post"))


def test_old_configurations_spell_rope_otherwise():
    old = BASE | {"model_type": "llama", "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    config = read_config(old, "config.json")
    assert (config.rope_theta, config.rope_scaling, config.rope_factor) == (500.0, "linear", 2.0)
    found = write_config(config)
    assert read_config(found, "config.json") == config
    del found["rope_parameters"]                        # as transformers 4 reads it
    assert read_config(found, "config.json") == config and found["rope_scaling"]["factor"] == 2.0


def test_pickles_and_half_folders_are_refused(tmp_path):
    model = theirs("llama")
    with pytest.raises(UserError, match="config.json: cannot be read"):
        load_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds no .safetensors; a pickle"):
        load_pretrained(tmp_path)


def test_several_files_are_one_model(tmp_path):
    model = theirs("llama")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    config, weights = load_pretrained(tmp_path)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in
               from_theirs(model.state_dict(), config, "llama").items())
    # Mistral's own form beside it, of the same weights under other names
    save_file({"layers.0.wq.weight": torch.zeros(1)}, tmp_path / "consolidated.safetensors")
    assert load_pretrained(tmp_path)[1].keys() == weights.keys()
    back = to_theirs(weights, config)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in back.items())


@torch.no_grad()
def test_a_training_starts_from_a_folder_or_a_file_and_the_vocabulary_may_grow(tmp_path):
    model = theirs("llama")
    model.save_pretrained(tmp_path / "theirs")
    config, weights = load_pretrained(tmp_path / "theirs")
    wider = ModelConfig(**{**config.__dict__, "vocab_size": 400})
    one, two = Transformer(config).eval(), initial_model(tmp_path / "theirs", wider).eval()
    one.load_state_dict(weights)
    assert all(p.requires_grad and p.is_contiguous() and p.dtype == torch.float32 for p in two.parameters())
    tokens = torch.randint(0, 384, (1, 30))
    torch.testing.assert_close(two(tokens)[..., :384], one(tokens))
    torch.testing.assert_close(two(tokens)[..., 390], one(tokens).mean(-1))
    save_weights(tmp_path / "model.safetensors", weights, config)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in
               initial_model(tmp_path / "model.safetensors", config).state_dict().items())
    halves = {name: tensor.bfloat16() for name, tensor in weights.items()}
    save_weights(tmp_path / "bf16.safetensors", halves, config)
    assert all(torch.equal(tensor, halves[name].float()) for name, tensor in
               initial_model(tmp_path / "bf16.safetensors", config).state_dict().items())
    with pytest.raises(UserError, match="has shape"):
        initial_model(tmp_path / "model.safetensors", wider)
    assert grow(weights, 100)["embedding.weight"].shape[0] == 384


# tokenizers

LETTERS = list("themil grand'ßüç\n\r\t  0123456789.,;!?-_()<>|你好é😀\u00a0\u2028 'SdT")
TEXT = st.text(st.sampled_from(LETTERS), max_size=60)


@pytest.fixture(scope="module")
def fast(tokenizer):
    from tokenizers import Tokenizer as Fast
    files = hf_tokenizer.to_files(tokenizer.encoding, 64, None, False)
    return Fast.from_str(json.dumps(files["tokenizer.json"]))


@settings(deadline=None, max_examples=300)
@given(text=TEXT)
def test_the_exported_tokenizer_gives_the_same_tokens(tokenizer, fast, text):
    if any(name in text for name in tokenizer.special):
        return                              # in their world the spelling of a special token is that token
    ids = fast.encode(text, add_special_tokens=False).ids
    assert ids == tokenizer.encode(text)
    assert fast.decode(ids, skip_special_tokens=False) == text


def test_every_character_is_split_alike(tokenizer, fast):
    characters = [chr(code) for code in range(0x3000) if not 0xD800 <= code < 0xE000]
    wrong = [c for c in characters for text in (f"ab{c}cd 1{c}2 {c}",)
             if fast.encode(text, add_special_tokens=False).ids != tokenizer.encode(text)]
    assert wrong == []


def test_a_tokenizer_comes_back_as_it_was(tokenizer):
    content = json.dumps(hf_tokenizer.to_files(tokenizer.encoding, 64, None, False)["tokenizer.json"]).encode()
    again = hf_tokenizer.from_file(content, tokenizer.encoding.name, "tokenizer.json")
    assert tokenizers.to_files(again) == tokenizers.to_files(tokenizer.encoding)


@pytest.mark.parametrize("mask", [None, 262])
def test_numbers_that_no_token_has_shift_no_token_of_an_export(mask, tmp_path):
    from transformers import AutoTokenizer
    ranks = {bytes([i]): i for i in range(256)} | {b"ab": 256, b"cd": 258}         # 257 and 259 as in p50k and cl100k
    odd = tokenizers.tiktoken.Encoding("odd", pat_str=tokenizers.PATTERN, mergeable_ranks=ranks,
                                       special_tokens={"<|endoftext|>": 257, "<|end|>": 260, "<|pad|>": 261})
    files = hf_tokenizer.to_files(odd, 64, mask, False)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    wanted = odd._special_tokens | ({"<|mask|>": 262} if mask else {})
    assert {name: theirs.convert_tokens_to_ids(name) for name in wanted} == wanted
    assert theirs("ab<|end|>cd").input_ids == [257] * (mask is None) + [256, 260, 258]
    assert len(theirs) == 263 if mask else 262
    again = hf_tokenizer.from_file(json.dumps(files["tokenizer.json"]).encode(), "odd", "tokenizer.json")
    assert again._mergeable_ranks == ranks and odd._special_tokens.items() <= again._special_tokens.items()


def test_texts_begin_with_the_token_that_an_imported_tokenizer_puts_there(tokenizer):
    """As in Llama 3: <|begin_of_text|> 128000 before a text, <|end_of_text|> 128001 behind it."""
    about = hf_tokenizer.to_files(tokenizer.encoding, 64, None, False)["tokenizer.json"]
    own, n = about["added_tokens"], len(about["model"]["vocab"])
    about["added_tokens"] = [own[0] | {"content": name, "id": n + i} for i, name in
                             enumerate(("<|begin_of_text|>", "<|end_of_text|>"))]
    about["model"]["vocab"] = {token: rank for token, rank in about["model"]["vocab"].items()
                               if token not in tokenizer.special}
    template = {"type": "TemplateProcessing", "special_tokens": {}, "pair": [], "single": [
        {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}
    about["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]}
    encoding = hf_tokenizer.from_file(json.dumps(about).encode(), "theirs", "tokenizer.json")
    ours = Tokenizer("theirs", encoding, encoding.eot_token, dict(encoding._special_tokens), encoding.n_vocab, "")
    assert (ours.bos, ours.eot) == (n, n + 1)
    assert prompt_tokens(ours, "the mill")[0] == prompt_tokens(ours, "the", chat=True)[0] == n
    assert [row[0][0] for row in continuation_rows(ours, [("the", " mill")], 64)] == [n]
    document = np.array([5, 6, 7, ours.eot])
    rows = Samples(np.array([4]), lambda i: (document, None), ours.eot, 6, "x", 0, bos=ours.bos).batch([0])
    assert rows.inputs[0].tolist() == [n, 5, 6, 7, n + 1, n + 1] and rows.targets[0, :4].tolist() == document.tolist()
    files = hf_tokenizer.to_files(encoding, 64, None, True)
    assert (files["tokenizer_config.json"]["bos_token"], files["tokenizer_config.json"]["eos_token"]) == (
        "<|begin_of_text|>", "<|endoftext|>")
    from tokenizers import Tokenizer as Fast
    assert Fast.from_str(json.dumps(files["tokenizer.json"])).encode("the mill").ids == prompt_tokens(ours, "the mill")
    again = hf_tokenizer.from_file(json.dumps(files["tokenizer.json"]).encode(), "theirs", "tokenizer.json")
    assert tokenizers.to_files(again) == tokenizers.to_files(encoding)
    template["single"] *= 2
    template["single"].sort(key=lambda piece: "Sequence" in piece)
    with pytest.raises(UserError, match="texts begin with several special tokens"):
        hf_tokenizer.from_file(json.dumps(about).encode(), "theirs", "tokenizer.json")


def test_a_tokenizer_that_reads_nfc_does_so_here_and_when_it_goes_out(tokenizer):
    about = hf_tokenizer.to_files(tokenizer.encoding, 64, None, False)["tokenizer.json"]
    assert about["normalizer"] is None and tokenizer.encode("Mu\u0308ller") != tokenizer.encode("Müller")
    about["normalizer"] = {"type": "NFC"}
    encoding = hf_tokenizer.from_file(json.dumps(about).encode(), "theirs", "tokenizer.json")
    kept = tokenizers.from_files(tokenizers.to_files(encoding))
    assert tokenizers.encode(kept, "Mu\u0308ller") == tokenizer.encode("Müller")
    assert hf_tokenizer.to_files(kept, 64, None, False)["tokenizer.json"] == about


def test_merges_are_those_that_make_each_token():
    ranks = {bytes([i]): i for i in range(256)} | {b"ab": 256, b"bc": 257, b"abc": 258, b"xyz": 259, b"aa": 260,
                                                   b"aaaa": 261}
    assert hf_tokenizer.merges(ranks) == [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"a"), (b"aa", b"aa")]


@pytest.mark.parametrize("change", [
    lambda about: about["model"].update(type="WordPiece"),
    lambda about: about.update(pre_tokenizer={"type": "BertPreTokenizer"}),
    lambda about: about["model"]["vocab"].pop("Ġ"), lambda about: about["model"]["merges"].reverse(),
    lambda about: about.update(normalizer={"type": "Lowercase"})])
def test_other_kinds_of_tokenizer_are_refused(tokenizer, change):
    about = hf_tokenizer.to_files(tokenizer.encoding, 64, None, False)["tokenizer.json"]
    change(about)
    with pytest.raises(UserError, match="tokenizer.json: not a tokenizer that is read here.*Llama 3 and Qwen3 can be"):
        hf_tokenizer.from_file(json.dumps(about).encode(), "theirs", "tokenizer.json")


# GGUF

# llama.cpp's own expressions (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp)
LLAMA_CPP = {
    "llama-bpe": r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
                 r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}


@settings(deadline=None, max_examples=300)
@given(text=TEXT)
def test_the_declared_pre_tokenizer_splits_as_ours(text):
    import regex
    import tiktoken_ext.openai_public as openai
    for pattern in (tokenizers.PATTERN, openai.r50k_pat_str):
        declared = LLAMA_CPP[gguf_file.PRE_TOKENIZERS[pattern]]
        assert regex.findall(declared, text) == regex.findall(pattern, text)


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama tied, biased", "llama linear", "llama 3.1", "qwen3"])
@torch.no_grad()
def test_gguf_is_read_back_whole(name, tmp_path, tokenizer):
    gguf = pytest.importorskip("gguf")
    model = theirs(name)
    config = read_config(model.config.to_dict(), "config.json")
    weights = from_theirs(model.state_dict(), config, family_of(config))
    gguf_file.write(tmp_path / "model.gguf", weights, config, tokenizer, "mill")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    about = {key: field.contents() for key, field in reader.fields.items()}
    kind = family_of(config)
    assert about["general.architecture"] == kind and about[f"{kind}.block_count"] == 3
    assert about["tokenizer.ggml.pre"] == "llama-bpe" and about["tokenizer.ggml.model"] == "gpt2"
    tokens = about["tokenizer.ggml.tokens"]
    assert len(tokens) == 384 == len(set(tokens)) and about["tokenizer.ggml.eos_token_id"] == tokenizer.eot
    assert tokens[tokenizer.eot] == "<|endoftext|>" and about["tokenizer.ggml.token_type"][tokenizer.eot] == 3
    assert about["tokenizer.ggml.token_type"][383] == 5 and about["tokenizer.ggml.add_bos_token"] is True
    assert [tuple(merge.split(" ")) for merge in about["tokenizer.ggml.merges"]] == [
        (hf_tokenizer.spelled(a), hf_tokenizer.spelled(b)) for a, b in
        hf_tokenizer.merges(tokenizer.encoding._mergeable_ranks)]
    tensors = {tensor.name: torch.from_numpy(np.array(tensor.data)) for tensor in reader.tensors}
    assert torch.equal(tensors["token_embd.weight"], weights["embedding.weight"])
    assert torch.equal(tensors["blk.2.ffn_down.weight"], weights["blocks.2.mlp.down.weight"])
    assert ("output.weight" in tensors) == (not config.tied)
    sizes = sum(tensor.numel() for key, tensor in tensors.items() if key != "rope_freqs.weight")
    assert sizes == config.parameters
    if kind == "gpt2":
        assert torch.equal(tensors["blk.1.attn_qkv.weight"], weights["blocks.1.attention.qkv.weight"])
        return
    assert about[f"{kind}.rope.freq_base"] == config.rope_theta
    assert about[f"{kind}.attention.head_count_kv"] == config.n_kv_heads
    if config.rope_scaling == "llama3":
        slowed = frequencies(config)
        plain = frequencies(ModelConfig(**{**config.__dict__, "rope_scaling": "none"}))
        torch.testing.assert_close(plain / tensors["rope_freqs.weight"], slowed)
    # llama.cpp turns neighbours (2i, 2i + 1) in a Llama and halves (i, i + D/2) in a Qwen3: the scores are the same
    rows = config.n_heads * config.head_width
    query = weights["blocks.0.attention.qkv.weight"][:rows].view(config.n_heads, config.head_width, -1)
    stored = tensors["blk.0.attn_q.weight"].view_as(query)
    half = config.head_width // 2
    if kind == "qwen3":
        assert torch.equal(stored, query) and "blk.0.attn_k_norm.weight" in tensors
    else:
        assert torch.equal(stored[:, 0::2], query[:, :half]) and torch.equal(stored[:, 1::2], query[:, half:])


def test_gguf_of_what_llama_cpp_has_not_is_refused(tmp_path, tokenizer, monkeypatch):
    odd = tokenizers.with_specials("odd", r"\s?\S+|\s+", tokenizer.encoding._mergeable_ranks, {})
    for preset, wrong, says in (("bert-tiny", tokenizer, "no output for masked tokens"),
                                ("tiny", Tokenizer("odd", odd, odd.eot_token, {}, odd.n_vocab, ""), "pre-tokenizer")):
        config = model_config(preset, vocab_size=384)
        with pytest.raises(UserError, match=says):
            gguf_file.write(tmp_path / "x.gguf", Transformer(config).state_dict(), config, wrong, "x")
    scaled = {"qk_norm": True, "rope_scaling": "llama3", "rope_factor": 8.0}
    for choices, says in (({"window": 8}, "sliding window"), (scaled, "llama3 in the architecture llama alone")):
        config = model_config("tiny", vocab_size=384, **choices)
        with pytest.raises(UserError, match=says):
            gguf_file.write(tmp_path / "x.gguf", Transformer(config).state_dict(), config, tokenizer, "x")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UserError, match=r"pip install 'gristmill\[gguf\]'"):
        config = model_config("tiny", vocab_size=384)
        gguf_file.write(tmp_path / "x.gguf", Transformer(config).state_dict(), config, tokenizer, "x")
    assert not (tmp_path / "x.gguf").exists()


def test_what_llama_cpp_splits_otherwise_is_told(tmp_path, tokenizer, caplog):
    pytest.importorskip("gguf")
    import tiktoken_ext.openai_public as openai
    assert gguf_file._CL100K in openai.cl100k_base.__code__.co_consts
    config = model_config("tiny", vocab_size=384)
    odd = tokenizers.with_specials("cl100k_base", gguf_file._CL100K, tokenizer.encoding._mergeable_ranks, {})
    ours = Tokenizer("cl100k_base", odd, odd.eot_token, dict(odd._special_tokens), odd.n_vocab, "")
    gguf_file.write(tmp_path / "x.gguf", Transformer(config).state_dict(), config, ours, "x")
    assert "white space that ends a text" in caplog.text


def test_half_precision_is_stored_as_asked(tmp_path, tokenizer):
    gguf = pytest.importorskip("gguf")
    config = model_config("tiny", vocab_size=384)
    weights = Transformer(config).initialise(0).state_dict()
    save_pretrained(tmp_path / "hf", weights, config, tokenizer, dtype="bf16")
    stored = load_weights(tmp_path / "hf" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    for dtype, kind in (("f16", "F16"), ("bf16", "BF16")):
        gguf_file.write(tmp_path / "x.gguf", weights, config, tokenizer, "x", dtype)
        kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
        assert kinds["token_embd.weight"] == kind and kinds["output_norm.weight"] == "F32"
