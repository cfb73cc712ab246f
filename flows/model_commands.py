"""`gristmill generate`, `convert`, `sizes` and `runs`: commands on models that start no flow."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tasks.errors import UserError
from tasks.storage import Root, home_uri

Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Step = Annotated[int | None, typer.Option("--step", help="of an older checkpoint; the newest by default")]
RULE = "-" * 15


def generate(
    run: Annotated[str, typer.Argument(help="the training run whose model writes")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="the text to go on from; -: standard input")] = "",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="at most so many new tokens")] = 200,
    samples: Annotated[int, typer.Option("--samples", min=1, help="texts, written at once, a rule between them")] = 1,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 always takes the likeliest token")
    ] = 0.8,
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="only from the k likeliest; 0 is all")] = 50,
    top_p: Annotated[
        float, typer.Option("--top-p", min=0.0, max=1.0, help="only from the likeliest that make up p")
    ] = 1.0,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="a text to end before; may be given again")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="the same seed, the same text")] = 0,
    chat: Annotated[
        bool | None, typer.Option("--chat/--no-chat", help="answer the prompt; by default finetuned runs do")
    ] = None,
    step: Step = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="of the weights: auto, fp32 or bf16")] = "auto",
) -> None:
    """Write text with a trained model, as it comes. Ctrl-C ends it."""
    from tasks.launch import several_texts, stream_text

    given = dict(max_tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=stop or [])
    given |= dict(chat=chat, step=step, device=device, precision=precision)
    prompt = _text(sys.stdin.buffer.read().removesuffix(b"\n") if prompt == "-" else os.fsencode(prompt))
    try:
        if samples > 1:
            print(f"\n{RULE}\n".join(several_texts(Root(home_uri()), run, prompt, samples, **given)))
            return
        for piece in stream_text(Root(home_uri()), run, prompt, **given):
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print()
        raise typer.Exit(130) from None                 # as a shell reports SIGINT
    print()


def _text(prompt: bytes) -> str:
    try:
        return prompt.decode()
    except UnicodeDecodeError:
        raise UserError("--prompt: not UTF-8; write it so") from None


def convert(
    run: Annotated[str, typer.Argument(help="the training run to export, or to make of --from")],
    to: Annotated[str | None, typer.Option("--to", help="huggingface or gguf")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="a new folder; gguf: gets RUN.gguf")] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="a folder that transformers wrote, or OWNER/NAME@COMMIT on Hugging Face's hub"),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="of the exported matrices: f32, f16 or bf16; f32 by default")
    ] = None,
    step: Step = None,
    as_json: Json = False,
) -> None:
    """Export a model for transformers or llama.cpp, or import one as a run that can be finetuned and sampled from.

    gristmill convert RUN --to huggingface --output exported; gristmill convert qwen --from Qwen/Qwen3-0.6B@COMMIT
    """
    from flows.present import print_mapping
    from tasks.launch import convert

    print_mapping(convert(Root(home_uri()), run, to, output, source, dtype, step), as_json)


def runs(as_json: Json = False) -> None:
    """The trainings here: how far each is, by its newest checkpoint, and how good it was at its end."""
    from flows.present import print_tables
    from tasks.launch import runs

    columns = {"run": "run", "kind": "kind", "complete": "complete", "step": "step", "loss": "loss_last",
               "bits_per_byte": "bits_per_byte"}
    rows = [{name: run.get(key) for name, key in columns.items()} for run in runs(Root(home_uri()))]
    print_tables({"": rows}, as_json)


def sizes(
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="that share what ZeRO shards")] = 1,
    gib: Annotated[float, typer.Option("--gib", min=1.0, help="memory of one GPU")] = 80.0,
    vocabulary: Annotated[int, typer.Option("--vocabulary", min=1, help="rows of the embedding")] = 32768,
    length: Annotated[int, typer.Option("--length", min=0, help="tokens; 0: the context, 4,096 at most")] = 0,
    as_json: Json = False,
) -> None:
    """Known model sizes: parameters, FLOPs a token, and the memory of one GPU in bf16 by ZeRO stage, before a run.

    The state is weights, gradients and AdamW's moments; a sequence adds its activations, whole or with activation
    checkpointing; `fits` are the sequences that a GPU takes at once under ZeRO 1, without and with checkpointing.
    """
    from flows.present import print_tables
    from model.memory import table

    print_tables({"": table(gpus, gib, vocabulary, length)}, as_json)
