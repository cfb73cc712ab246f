import pytest
import torch

from model.config import PRESETS, ModelConfig, model_config
from model.convert import from_gpt2, gpt2_config, load_model, load_weights, save_weights
from model.generate import generate, sample
from model.transformer import Transformer
from tasks.errors import UserError

SMALL = {"vocab_size": 97, "context": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "width": 32, "hidden": 56}
FORMS = {"llama": ModelConfig(**SMALL, tied=False),
         "gpt2": ModelConfig(**SMALL | {"n_kv_heads": 4}, norm="layer", mlp="gelu", position="learned", bias=True)}


@pytest.fixture(params=FORMS)
def model(request):
    return Transformer(FORMS[request.param]).initialise(1).eval()


def test_gpt2_logits_equal_those_of_transformers():
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=211, n_positions=64, n_embd=48, n_layer=3, n_head=4)).eval()
    for weight in theirs.parameters():          # biases too: they start as zeros
        torch.nn.init.normal_(weight, std=0.1)
    ours = from_gpt2(theirs.state_dict(), gpt2_config(theirs.config)).eval()
    tokens = torch.randint(0, 211, (3, 64))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)


def test_llama_logits_equal_those_of_transformers():
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    config = FORMS["llama"]
    theirs = LlamaForCausalLM(LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=config.norm_eps, rope_theta=config.rope_theta)).eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    state = theirs.state_dict()
    mine = {"embedding.weight": state["model.embed_tokens.weight"], "norm.weight": state["model.norm.weight"],
            "head.weight": state["lm_head.weight"]}
    for i in range(2):
        block, layer = f"blocks.{i}.", f"model.layers.{i}."
        mine[block + "attention.qkv.weight"] = torch.cat([state[f"{layer}self_attn.{x}_proj.weight"] for x in "qkv"])
        for ours, name in {"attention.out": "self_attn.o_proj", "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj",
                           "mlp.down": "mlp.down_proj", "attention_norm": "input_layernorm",
                           "mlp_norm": "post_attention_layernorm"}.items():
            mine[f"{block}{ours}.weight"] = state[f"{layer}{name}.weight"]
    ours = Transformer(config).eval()
    ours.load_state_dict(mine)
    tokens = torch.randint(0, 97, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_documents_packed_into_a_row_see_only_themselves(model):
    torch.manual_seed(2)
    lengths = [7, 19, 1, 15]
    documents = [torch.randint(0, 97, (1, n)) for n in lengths]
    row = torch.cat([*documents, torch.zeros(1, 6, dtype=torch.int64)], 1)
    positions = torch.cat([*(torch.arange(n) for n in lengths), torch.zeros(6, dtype=torch.int64)])[None]
    segments = torch.repeat_interleave(torch.tensor([0, 1, 2, 3, -1]), torch.tensor([*lengths, 6]))[None]
    packed = model(row, positions, segments)
    at = 0
    for document in documents:
        torch.testing.assert_close(packed[:, at:at + document.shape[1]], model(document), rtol=0, atol=2e-6)
        at += document.shape[1]
    assert torch.isfinite(packed).all()
    assert not torch.allclose(packed[:, 7:26], model(row)[:, 7:26], atol=1e-3)       # the mask does something


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_cache_changes_nothing_even_past_the_context(model, temperature):
    prompt = [3, 1, 4, 1, 5] * 6
    cached, plain = (list(generate(model, prompt, 45, n_vocab=97, temperature=temperature, top_k=20, top_p=0.9, seed=3,
                                   cached=cached)) for cached in (True, False))
    assert cached == plain and len(cached) == 45


def test_sampling_is_cut_as_told():
    logits = torch.tensor([0.0, 3.0, 2.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    assert {sample(logits, 5.0, 2, 1.0, generator) for _ in range(60)} == {1, 2}
    assert {sample(logits, 1.0, 0, 0.1, generator) for _ in range(30)} == {1}
    assert {sample(logits, 100.0, 0, 1.0, generator) for _ in range(200)} == {0, 1, 2, 3}
    assert sample(logits, 0.0, 0, 1.0, generator) == 1


def test_generation_stops_before_the_stop_token(model):
    tokens = list(generate(model, [5], 30, n_vocab=97, seed=1))
    cut = list(generate(model, [5], 30, n_vocab=97, seed=1, stop=frozenset({tokens[4]})))
    assert cut == tokens[:tokens.index(tokens[4])]


@pytest.mark.parametrize("preset", [name for name in PRESETS if name in ("tiny", "gpt2-tiny", "mini")])
def test_the_number_of_parameters_is_counted_right(preset):
    for tied in (True, False):
        config = model_config(preset, vocab_size=300, tied=tied)
        assert config.parameters == sum(p.numel() for p in Transformer(config).parameters())


def test_gpt2_has_its_124_million_parameters():
    assert model_config("gpt2-124m", vocab_size=50257).parameters == 124_439_808


def test_weights_survive_safetensors_and_nothing_else_is_read(tmp_path, model):
    save_weights(tmp_path / "model.safetensors", model.state_dict(), model.config)
    again = load_model(tmp_path / "model.safetensors", model.config)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    first = (tmp_path / "model.safetensors").read_bytes()
    for _ in range(20):                                 # the sha256 of a checkpoint's weights names them
        save_weights(tmp_path / "same.safetensors", model.state_dict(), model.config)
        assert (tmp_path / "same.safetensors").read_bytes() == first
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="safetensors alone"):
        load_weights(tmp_path / "model.pt")
    (tmp_path / "disguised.safetensors").write_bytes((tmp_path / "model.pt").read_bytes())
    with pytest.raises(UserError, match="not a whole safetensors"):
        load_weights(tmp_path / "disguised.safetensors")
    with pytest.raises(UserError, match="has shape"):
        load_model(tmp_path / "model.safetensors", FORMS["gpt2" if model.position is None else "llama"])


@pytest.mark.parametrize(("wrong", "says"), [({"width": 30}, "n_heads"), ({"n_kv_heads": 3}, "groups"),
                                             ({"widht": 32}, "no such field")])
def test_a_shape_that_contradicts_itself_is_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        model_config("tiny", **wrong)
    with pytest.raises(UserError, match="there are tiny"):
        model_config("huge")
