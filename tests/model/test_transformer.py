import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from model.attention import flex_mask, visible
from model.config import PRESETS, ModelConfig, model_config
from model.convert import load_model, load_weights, save_weights
from model.transformer import KeyValueCache, Transformer
from tasks.errors import UserError

SMALL = {"vocab_size": 97, "context": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "width": 32, "hidden": 56}
FORMS = {"llama": ModelConfig(**SMALL, tied=False),
         "gpt2": ModelConfig(**SMALL | {"n_kv_heads": 4}, norm="layer", mlp="gelu", position="learned", bias=True),
         "qwen3": ModelConfig(**SMALL, qk_norm=True, head_width=12, window=6, rope_scaling="llama3", rope_factor=4.0,
                              rope_original=16)}
BERT_FORM = ModelConfig(**PRESETS["bert-tiny"] | SMALL | {"n_kv_heads": 4})


@pytest.fixture(params=FORMS)
def model(request):
    return Transformer(FORMS[request.param]).initialise(1).eval()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without")     # compiled on GPUs alone
@pytest.mark.parametrize("attention", ["sdpa", "flex"])
@pytest.mark.parametrize("config", [*FORMS.values(), BERT_FORM], ids=[*FORMS, "bert"])
def test_documents_packed_into_a_row_see_only_themselves(config, attention):
    torch.manual_seed(2)
    model = Transformer(config, attention).initialise(1).eval()
    lengths = [7, 19, 1, 15]
    documents = [torch.randint(0, 97, (1, n)) for n in lengths]
    row = torch.cat([*documents, torch.zeros(1, 6, dtype=torch.int64)], 1)
    positions = torch.cat([*(torch.arange(n) for n in lengths), torch.zeros(6, dtype=torch.int64)])[None]
    segments = torch.repeat_interleave(torch.tensor([0, 1, 2, 3, -1]), torch.tensor([*lengths, 6]))[None]
    packed = model(row, positions, segments)
    at = 0
    for document in documents:
        torch.testing.assert_close(packed[:, at:at + document.shape[1]], model(document), rtol=0, atol=1e-6)
        at += document.shape[1]
    assert torch.isfinite(packed).all()
    assert not torch.allclose(packed[:, 7:26], model(row)[:, 7:26], atol=1e-3)       # the mask does something
    torch.testing.assert_close(Transformer(config, "sdpa").initialise(1).eval()(row), model(row), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("causal", "window"), [(True, 0), (True, 100), (True, 300), (False, 0)])
@pytest.mark.parametrize("length", [512, 700])
def test_blocks_of_documents_are_those_that_all_pairs_give(length, causal, window):
    torch.manual_seed(5)
    segments = torch.stack([torch.repeat_interleave(torch.tensor([7, 3, 9, 2, -1]), torch.tensor(
        [*sizes, length - sum(sizes)])) for sizes in ([130, 60, 100, 40], [1, 255, 128, 1], [300, 90, 1, 1])])
    found = flex_mask(segments, causal, window)

    def rule(batch, head, query, key):
        return visible(query, key, causal, window) & (segments[batch, query] == segments[batch, key])

    expected = create_block_mask(rule, 3, None, length, length, device="cpu")
    torch.testing.assert_close(found.to_dense(), expected.to_dense())
    for which in ("kv", "full_kv", "q", "full_q"):
        numbers = [getattr(mask, f"{which}_num_blocks") for mask in (found, expected)]
        assert torch.equal(*numbers)
        indices = [getattr(mask, f"{which}_indices") for mask in (found, expected)]
        used = torch.arange(indices[0].shape[-1]) < numbers[0][..., None]
        assert torch.equal(indices[0][used], indices[1][used])


@torch.no_grad()
def test_autocast_attends_in_one_dtype(monkeypatch):
    """FlexAttention takes no others, and norms of queries and keys are fp32 under autocast."""
    seen = []
    monkeypatch.setattr("model.transformer.attend", lambda q, k, v, *_: seen.append({q.dtype, k.dtype, v.dtype}) or q)
    with torch.autocast("cpu", torch.bfloat16):
        Transformer(FORMS["qwen3"])(torch.zeros(1, 9, dtype=torch.int64))
    assert seen == [{torch.bfloat16}] * 2


@torch.no_grad()
def test_a_window_reaches_as_far_as_its_layers_together():
    model = Transformer(ModelConfig(**SMALL, window=6)).initialise(1).eval()
    torch.manual_seed(6)
    tokens = torch.randint(0, 97, (1, 30))
    other = tokens.clone()
    other[0, 9] = (other[0, 9] + 1) % 97
    differs = (model(tokens) != model(other)).any(-1)[0]
    # two layers of a window of 6 reach 2 * 5 tokens on
    assert not differs[:9].any() and differs[9:20].all() and not differs[20:].any()


@torch.no_grad()
def test_an_encoder_sees_the_whole_document_and_nothing_of_others():
    model = Transformer(BERT_FORM).initialise(1).eval()
    tokens, segments = torch.randint(0, 97, (1, 20)), torch.arange(20)[None] // 10
    other = tokens.clone()
    other[0, 9] = (other[0, 9] + 1) % 97
    differs = (model(tokens, segments=segments) != model(other, segments=segments)).any(-1)[0]
    assert differs[:10].all() and not differs[10:].any()


@torch.no_grad()
@pytest.mark.parametrize("cut", [1, 7, 20])
def test_texts_of_different_lengths_share_a_cache_when_padded_on_the_left(model, cut):
    torch.manual_seed(3)
    tokens, pads = torch.randint(0, 97, (2, 24)), torch.tensor([0, 5])
    segments = (torch.arange(24) >= pads[:, None]).long() - 1
    positions = (torch.arange(24) - pads[:, None]).clamp(min=0)
    cache = KeyValueCache(model.config, 2)
    parts = [model(tokens[:, begin:end], positions[:, begin:end], segments[:, :end], cache)
             for begin, end in ((0, cut), (cut, cut + 1), (cut + 1, 24))]
    found = torch.cat(parts, 1)
    torch.testing.assert_close(found[0], model(tokens[:1])[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[1, 5:], model(tokens[1:, 5:])[0], rtol=0, atol=1e-6)


@torch.no_grad()
def test_logits_can_be_had_of_some_tokens_alone(model):
    torch.manual_seed(4)
    tokens, wanted = torch.randint(0, 97, (3, 9)), torch.rand(3, 9) < 0.4
    torch.testing.assert_close(model(tokens, wanted=wanted), model(tokens)[wanted], rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_cache_has_the_room_that_was_asked_for_and_forgets_rows(model):
    tokens = torch.randint(0, 97, (3, 9))
    cache = KeyValueCache(model.config, 3, room=9)
    model(tokens[:, :8], cache=cache)
    cache.keep(torch.tensor([2, 0]))
    torch.testing.assert_close(model(tokens[[2, 0], 8:], cache=cache)[:, 0], model(tokens[[2, 0]])[:, -1], rtol=0,
                               atol=1e-6)
    with pytest.raises(ValueError, match="do not fit"):
        model(tokens[:2, :1], cache=cache)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_number_of_parameters_is_counted_right(preset):
    for choices in ({"tied": True}, {"tied": False, "bias": True}):
        config = model_config(preset, vocab_size=300, **choices)
        with torch.device("meta"):
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
                                             ({"widht": 32}, "no such field"), ({"head_width": 7}, "rotates pairs"),
                                             ({"causal": False, "window": 8}, "whole text"),
                                             ({"rope_scaling": "linear", "rope_factor": 0.5}, "1 or more"),
                                             ({"rope_scaling": "llama3", "rope_low": 9.0}, "rope_low"),
                                             ({"window": -1}, "window: -1 is not a whole number from 0 on"),
                                             ({"n_kv_heads": 0}, "n_kv_heads: 0 is not a whole number from 1 on"),
                                             ({"n_layers": "six"}, "n_layers: 'six' is not a whole number"),
                                             ({"width": 128.0}, "width: 128.0 is not"), ({"hidden": True}, "hidden"),
                                             ({"rope_scaling": "yarn"}, "'yarn' is not one of none, linear, llama3"),
                                             ({"norm": "rmsnorm"}, "norm: 'rmsnorm' is not one of rms, layer"),
                                             ({"mlp": "geglu"}, "'geglu' is not one of swiglu, gelu, gelu-exact"),
                                             ({"position": "alibi"}, "'alibi' is not one of rope, learned"),
                                             ({"norm": ["rms"]}, "is not one of rms"), ({"tied": "no"}, "true or fals"),
                                             ({"norm_eps": 0}, "norm_eps: 0 is not a number above 0"),
                                             ({"rope_theta": float("nan")}, "nan is not a number above 0"),
                                             ({"norm_place": "mid"}, "one of pre, post")])
def test_a_shape_that_contradicts_itself_is_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        model_config("tiny", **wrong)
    with pytest.raises(UserError, match="there are tiny"):
        model_config("huge")
