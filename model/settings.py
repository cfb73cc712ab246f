"""What a training run can be told. Read by the flows (as forms), by tasks/launch and by model/train.

Importing this module does not import PyTorch.
"""

from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import UserError

Settings = TypeVar("Settings", bound=BaseModel)


def parse(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """Settings of `kind` from plain values; UserError names the first wrong key and the nearest valid one."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = get_close_matches(name, kind.model_fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(kind.model_fields))}"
            raise UserError(f"setting {name}: {kind.__name__} has no such setting; {hint}") from None
        raise UserError(f"setting {name}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


class Optimisation(BaseModel):
    """Settings that pretraining and finetuning share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(400, ge=1, description=(
        "Optimiser steps of the whole run. A run can be given more, and another schedule from where it is, where the "
        "steps taken had the same learning rates: constant, or wsd before its decay, with as many steps of warm-up."))
    batch: int = Field(4, ge=1, description="Sequences a step over all ranks; the loss is their mean per token.")
    micro_batch: int = Field(4, ge=1, description="Sequences a rank takes at once at the most: as many as divide its "
                                                  "share of the batch; the rest is accumulated.")
    sequence_length: int | None = Field(None, ge=2, description="Tokens a sequence; the model's context if not set.")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: for the matrices inside the blocks, AdamW "
                                                                     "for the rest; engine torch, or zero_stage 0 in "
                                                                     "fp32.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate.")
    schedule: Literal["cosine", "wsd", "constant"] = Field(
        "cosine",
        description="After the warm-up: half a cosine (arXiv:1608.03983), or stay, then decay (arXiv:2404.06395).",
    )
    warmup: float = Field(0.05, ge=0, le=1, description="Fraction of the steps that warms up linearly.")
    decay: float = Field(0.2, ge=0, le=1, description="Fraction of the steps that WSD decays over, at the end.")
    final_lr: float = Field(0.1, ge=0, le=1, description="Last learning rate as a fraction of the peak.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's betas (GPT-3's values).")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum.")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled decay, on matrices only.")
    clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0 does not clip.")
    z_loss: float = Field(0.0, ge=0, description="Weight of log(Z)^2 in what is minimised; PaLM took 1e-4.")
    parametrisation: Literal["standard", "mup"] = Field(
        "standard",
        description="mup: a learning rate found at base_width serves any width (arXiv:2203.03466).",
    )
    base_width: int = Field(128, ge=1, description="mup: the width at which it equals the standard parametrisation.")
    spike_deviations: float = Field(0.0, ge=0, description=(
        "A batch whose loss lies this many standard deviations above the last 128, or is not finite, is left out and "
        "written down in spikes.jsonl; 0: none is, and a loss that is not finite ends the run."))
    spike_rewind: int = Field(3, ge=1, description="Batches left out in a row after which the run takes back the "
                                                   "weights of its last checkpoint, and goes on with new batches.")
    seed: int = Field(0, ge=0, description="Decides initial weights and sample order.")
    held_out: float = Field(0.01, ge=0, lt=1, description="Fraction of documents, by hash of doc_id, never trained on.")
    held_out_at_least: int = Field(8, ge=0, description="Documents held out at the least (never more than half).")
    evaluate_every: int = Field(100, ge=0, description="Steps between held-out evaluations; 0: at the end only.")
    evaluate_rows: int = Field(64, ge=1, description="Held-out sequences an evaluation in the loop reads at most.")
    evaluate_by: Literal["none", "source", "language", "domain"] = Field(
        "source",
        description="Held-out evaluations in the loop also give bits per byte by this column.",
    )
    benchmarks: list[str] = Field([], description="Multiple-choice files that evaluations in the loop answer too: "
                                                  "jsonl{,.gz} with rows {query, choices, gold}.")
    benchmark_questions: int = Field(200, ge=0, description="First questions of each that they ask; 0: all.")
    checkpoint_every: int = Field(100, ge=0, description="Steps between checkpoints; 0: at the end only.")
    keep_checkpoints: int = Field(3, ge=0, description="Newest checkpoints kept; 0 keeps all.")
    background_checkpoints: bool = Field(True, description="Write checkpoints from a copy in the host's memory while "
                                                           "the training goes on; false: it waits for them.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on GPUs with it, else fp32.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: GPUs where there are any.")
    attention: Literal["auto", "sdpa", "flex"] = Field(
        "auto",
        description="flex: FlexAttention, GPUs alone, the same result; auto: that on GPUs, else PyTorch's own.",
    )
    engine: Literal["deepspeed", "torch"] = Field("deepspeed", description="torch: plain data parallel PyTorch.")
    zero_stage: Literal[0, 1, 2, 3] = Field(1, description="What DeepSpeed shards over ranks: 1 optimiser state, "
                                                           "2 gradients too, 3 parameters too (arXiv:1910.02054). In "
                                                           "bf16 with micro-steps to add up, which is done in fp32, "
                                                           "1 is done as 2.")
    deepspeed: dict[str, Any] | str = Field({}, description="DeepSpeed configuration laid over ours: keys, or a JSON "
                                                            "file such as infra/deepspeed/zero3.json.")
    offload: Literal["none", "optimizer", "parameters"] = Field(
        "none",
        description="What DeepSpeed keeps in the host's memory: the optimiser's state (stages 1 to 3), or the "
                    "parameters too (stage 3). Not on NVMe: what lies there could not be checkpointed.",
    )
    activation_checkpointing: bool = Field(False, description="Keep each layer's input alone and compute the rest "
                                                              "again in the backward pass (arXiv:1604.06174).")
    compile: bool = Field(False, description="torch.compile for model and loss: takes a minute once, and a C++ "
                                             "compiler.")
    compile_ops: bool = Field(False, description="Let DeepSpeed build its shared-memory all-reduce for CPU ranks of "
                                                 "one machine: needs g++ and ninja, takes up to 2 minutes once.")
    tracker: Literal["none", "wandb", "mlflow"] = Field("none", description=(
        "Also send the figures of each step to Weights & Biases or MLflow, where their own environment variables say. "
        "TensorBoard files are always in the run's folder."))
    project: str = Field("gristmill", description="The tracker's project or experiment.")
    peak_tflops: float = Field(0.0, ge=0, description="Peak of one device in TFLOP/s, that MFU is a share of; 0: the "
                                                      "data sheet's for bf16 where the GPU is known.")
    cpu_watts: float = Field(10.0, ge=0, description="Watts a busy CPU core is taken to draw: energy is an estimate.")


class Pretrain(Optimisation):
    preset: str = Field("tiny", description="A known model size: tiny, mini, small, gpt2-124m, llama-1b ...")
    model: dict[str, Any] = Field({}, description="Fields laid over the preset, such as {\"n_layers\": 6}.")
    initial: str = Field("", description="Pretrained weights to start from, whose shape is taken too: a folder that "
                                         "transformers wrote, or a model on Hugging Face's hub as OWNER/NAME@COMMIT.")
    mixture: dict[str, float] = Field({}, description="Weights of the corpus's sources, whose tokens are seen in this "
                                                      "proportion, and of no others; {}: each token once an epoch.")
    masking: float = Field(0.15, gt=0, lt=1, description="Encoders: fraction of the tokens to be predicted.")
    whole_words: bool = Field(False, description="Encoders: the tokens of a word are masked together.")


class Finetune(Optimisation):
    steps: int = Field(0, ge=0, description="Optimiser steps; 0: `epochs` times over the rows.")
    epochs: float = Field(3, gt=0, description="Passes over the rows where `steps` is 0.")
    learning_rate: float = Field(3e-4, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled decay, on matrices only.")
    held_out: float = Field(0.05, ge=0, lt=1, description="Fraction of the rows, by their hash, not trained on.")


class Evaluate(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmarks: list[str] = Field([], description="Multiple-choice jsonl{,.gz}: rows {query, choices, gold}.")
    texts: list[str] = Field([], description="Clean text whose bits per byte to measure: text files, or jsonl{,.gz} "
                                             "with rows of text.")
    pairs: list[str] = Field([], description="Minimal pairs, such as BLiMP: jsonl{,.gz} with rows of good and bad.")
    few_shot: list[int] = Field([0], description="Numbers of worked examples put before each question.")
    examples: dict[str, str] = Field({}, description="Benchmark's name to the file of its training part, which worked "
                                                     "examples are taken from; by default from its other questions.")
    examples_by: Literal["seed", "first"] = Field("seed", description="Which worked examples: drawn anew for each "
                                                                      "question by the seed, or the file's first.")
    by: list[str] = Field(["source"], description="Fields of rows of text to give bits per byte by.")
    largest: int = Field(1000, ge=0, description="Sources, languages and domains of the most bytes alone; 0: all.")
    harness: list[str] = Field([], description="Tasks of lm-evaluation-harness (pip install lm_eval).")
    harness_tasks: str = Field("", description="A folder of task files (YAML) that lm-evaluation-harness knows too.")
    limit: int = Field(0, ge=0, description="Questions of each benchmark at most; 0: all.")
    held_out: bool = Field(True, description="Bits per byte and perplexity on the corpus's held-out documents.")
    documents: int = Field(0, ge=0, description="Held-out documents at most; 0: all.")
    batch: int = Field(16, ge=1, description="Sequences at once.")
    seed: int = Field(0, ge=0, description="Decides which worked examples a question gets.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="Of the weights; auto: bf16 on GPUs with "
                                                                           "it, else fp32.")


# What a run that goes on may be told anew: nothing here changes what is learnt.
FREE = frozenset({"evaluate_every", "evaluate_rows", "evaluate_by", "benchmarks", "benchmark_questions",
                  "checkpoint_every", "keep_checkpoints", "cpu_watts",
                  "micro_batch", "compile_ops", "attention", "compile", "activation_checkpointing", "tracker",
                  "project", "peak_tflops", "background_checkpoints", "engine", "zero_stage", "offload"})
# What may be told anew too where the steps already taken had the same learning rates: a run is made longer so.
SCHEDULE = frozenset({"steps", "learning_rate", "schedule", "warmup", "decay", "final_lr"})


# Keys of DeepSpeed's configuration, and the settings that decide what they would.
DECIDED = {
    "train_batch_size": "batch", "train_micro_batch_size_per_gpu": "micro_batch",
    "gradient_accumulation_steps": "batch and micro_batch", "managed_gradient_accumulation": "batch and micro_batch",
    "gradient_clipping": "clip", "zero_optimization.compute_grad_norm": "clip", "optimizer": "optimizer",
    "scheduler": "schedule", "bf16": "precision", "bfloat16": "precision", "fp16": "precision", "amp": "precision",
    "torch_autocast": "precision", "data_types": "precision", "zero_optimization.stage": "zero_stage",
    "zero_optimization.offload_optimizer.device": "offload", "zero_optimization.offload_param.device": "offload",
}


def check_overlay(laid: dict[str, Any], prefix: str = "") -> None:
    """UserError for a key of DeepSpeed's configuration that another setting decides or that cannot be taken."""
    for key, value in laid.items():
        name = prefix + key
        if name in DECIDED:
            raise UserError(f"setting deepspeed.{name}: that is what {DECIDED[name]} decides; set it there")
        if value == "auto":
            raise UserError(f"setting deepspeed.{name}: auto is for Hugging Face's Trainer to fill in; leave it out")
        if isinstance(value, dict):
            check_overlay(value, name + ".")


def check(settings: Optimisation) -> None:
    """UserError for settings that exclude each other."""
    if isinstance(settings.deepspeed, dict):
        check_overlay(settings.deepspeed)
    if settings.schedule == "wsd" and settings.warmup + settings.decay > 1:
        raise UserError(f"setting decay: a warm-up over {settings.warmup:g} of the steps and a decay over "
                        f"{settings.decay:g} overlap; lower one of them")
    sharded = settings.engine == "deepspeed" and settings.zero_stage > 0
    if settings.optimizer == "muon" and sharded:
        raise UserError(
            f"setting optimizer: muon makes whole matrices orthogonal, and ZeRO stage {settings.zero_stage} gives each "
            "rank a slice of the flattened ones; set engine to torch, or optimizer to adamw"
        )
    if settings.offload != "none" and not sharded:
        raise UserError("setting offload: it is done by DeepSpeed's ZeRO; set engine to deepspeed and zero_stage to 1, "
                        "2 or 3")
    if settings.compile and settings.engine == "deepspeed" and settings.zero_stage == 3:
        raise UserError("setting compile: torch.compile traces the weights while ZeRO stage 3 has them put away; set "
                        "compile to false, or zero_stage to 1 or 2")
    if settings.offload == "parameters" and settings.zero_stage != 3:
        raise UserError(f"setting offload: parameters can be offloaded under zero_stage 3, not {settings.zero_stage}")


def at_once(settings: Optimisation, world: int) -> int:
    """Sequences that each of `world` ranks takes at once: the most, up to `micro_batch`, that its share of the batch is
    a multiple of. UserError where the batch cannot be shared evenly."""
    if settings.batch % world:
        raise UserError(f"setting batch: {settings.batch} sequences cannot be shared evenly by {world} ranks; change "
                        "batch, or processes")
    share = settings.batch // world
    return next(n for n in range(min(share, settings.micro_batch), 0, -1) if share % n == 0)


class Processes(BaseModel):
    """How the processes of a run are started."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    launcher: Literal["torchrun", "deepspeed"] = Field("torchrun", description="Which launcher starts the ranks; one "
                                                                              "alone starts without torchrun.")
    processes: int = Field(0, ge=0, description="Ranks on this machine; 0: one a GPU, on as many as can "
                                                "share the batch evenly, or one on CPU.")
    threads: int = Field(0, ge=0, description="OMP threads a rank; 0: the machine's cores divided by its ranks.")
    nodes: int = Field(1, ge=1, description="Machines that share the data root; the same command on each.")
    node_rank: int = Field(0, ge=0, description="Number of this machine; number 0 records the run.")
    rendezvous: str = Field("", description="HOST:PORT of the first machine, for more than one.")
    address: str = Field("", description="This machine's address as the others know it, where it has several.")
    restarts: int = Field(3, ge=0, description="How many times the ranks of several machines are started again from "
                                               "the last checkpoint when one of them or a machine is lost (torchrun); "
                                               "a lost machine comes back by its command.")
    nodes_at_least: int = Field(0, ge=0, description="Machines with which to go on while others are lost; 0: all. "
                                                     "The batch has to divide among as few.")
    join_timeout: int = Field(3600, ge=1, description="Seconds that machines wait for one another, at the start and "
                                                      "when one is lost, before the run ends.")
    rendezvous_id: str = Field("gristmill", description="Name that the machines of one run share.")
    grace: float = Field(60.0, ge=0, description="Seconds that ranks get to save after SIGTERM, or after the process "
                                                 "that launched them died, before they are killed. Whoever stops a "
                                                 "whole machine has to leave it as many: make serve leaves 75.")
