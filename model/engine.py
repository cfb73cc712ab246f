"""Two ways to take a step over many ranks: DeepSpeed (ZeRO), and plain data parallel PyTorch.

Both give: model (called for logits), backward(loss), step(lr) -> gradient norm, drop(), weights(), and for checkpoints
snapshot(copy) and load(stored) (see model/state). A step whose gradient is not finite leaves the weights as they are;
drop() forgets the gradients gathered. The loss that goes into backward is this rank's share of the mean over the whole
batch: the sum of its token losses divided by the tokens of all ranks and micro-steps; so accumulation and world size
leave the gradient as it is.
"""

import contextlib
import math
import os
import shutil

import torch
import torch.distributed as dist
from torch.nn.utils import clip_grad_norm_, get_total_norm

from model import state
from model.memory import BUCKET
from model.optimizer import optimizer, set_rate
from model.settings import Optimisation
from model.transformer import Transformer
from tasks.errors import UserError
from tasks.overlay import overlaid


def start(settings: Optimisation) -> tuple[int, int, torch.device]:
    """Joins the launcher's process group, or makes one of one. Returns rank, world size, device."""
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        raise UserError(
            "setting device: cuda was asked for and PyTorch sees no GPU; use auto or cpu, or mend the driver"
        )
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise UserError(f"setting processes: rank {local} of this machine has no GPU, PyTorch sees "
                        f"{torch.cuda.device_count()}: set processes to that or less (0: one a GPU), or look at "
                        "CUDA_VISIBLE_DEVICES")
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    if not dist.is_initialized():
        if "RANK" in os.environ:
            join(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return dist.get_rank(), dist.get_world_size(), device


def join(backend: str) -> None:
    """Joins the process group that the launcher's environment describes; UserError where its port is taken."""
    try:
        dist.init_process_group(backend)
    except RuntimeError as error:
        if "EADDRINUSE" not in str(error) and "address already in use" not in str(error).lower():
            raise
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(f"the ranks could not meet at {where}: another program has the port; set rendezvous to a free "
                        "one (HOST:PORT), or end that program") from None


def bf16(settings: Optimisation, device: torch.device) -> bool:
    """Whether to compute in bf16; by default on GPUs that have it (from Ampere on)."""
    return settings.precision == "bf16" or (settings.precision == "auto" and device.type == "cuda"
                                            and torch.cuda.is_bf16_supported(including_emulation=False))


class Torch:
    """Replicated weights in fp32; gradients are summed over ranks before each step."""

    def __init__(self, model: Transformer, settings: Optimisation, device: torch.device):
        self.module = model.to(device)
        self.optimizer, self.clip, self.device = optimizer(model, settings), settings.clip, device
        self.autocast = (lambda: torch.autocast(device.type, torch.bfloat16)) if bf16(settings, device) \
            else contextlib.nullcontext
        check_compiler(settings, device)
        if settings.compile:
            self.module.compile()

    def model(self, *inputs: torch.Tensor, **asked: torch.Tensor) -> torch.Tensor:
        with self.autocast():
            return self.module(*inputs, **asked)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self, lr: float) -> float:
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        if dist.get_world_size() > 1:
            for sent in [dist.all_reduce(p.grad, async_op=True) for p in parameters]:
                sent.wait()
        norm = float(clip_grad_norm_(parameters, self.clip or float("inf")))
        if math.isfinite(norm):
            set_rate(self.optimizer.param_groups, lr)
            self.optimizer.step()
        self.drop()
        return norm

    def drop(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def snapshot(self, copy: bool) -> dict[str, torch.Tensor]:
        """This rank's share of the optimiser's state, which all have whole."""
        mine = whole(self.module)[dist.get_rank()::dist.get_world_size()]
        return state.snapshot(mine, self.optimizer, False, copy)

    def load(self, stored: state.Stored) -> None:
        read_weights(self.module, stored)
        state.restore(whole(self.module), self.optimizer, stored, copies=False)

    def weights(self) -> dict[str, torch.Tensor]:
        return self.module.state_dict()


class DeepSpeed:
    """DeepSpeed's ZeRO stages 0 to 3 around the same optimizer. Weights are those of rank 0: others may give none."""

    def __init__(self, model: Transformer, settings: Optimisation, device: torch.device):
        if bf16(settings, device) and settings.zero_stage == 0:
            other = "" if settings.optimizer == "muon" else ", or zero_stage to 1"
            raise UserError("setting zero_stage: DeepSpeed's stage 0 in bf16 drifts from the others; set engine to "
                            f"torch or precision to fp32{other}")
        deepspeed = import_deepspeed(settings.compile_ops, device)
        self.bf16 = bf16(settings, device)
        self.accumulate = settings.batch // (settings.micro_batch * dist.get_world_size())
        config = deepspeed_config(settings, self.accumulate, self.bf16, model.config.parameters, device)
        self.stage = config["zero_optimization"]["stage"]
        model.to(torch.bfloat16 if self.bf16 else torch.float32)
        if next(model.parameters()).is_meta:
            model.to_empty(device="cpu")                # never written to: each tensor comes from rank 0
        if self.stage == 3:             # cut, tensor by tensor: the device may have no room for the whole
            deepspeed.zero.Init(module=model, config_dict_or_path=config)
        self.engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer(model, settings), config=config)
        self.model = self.engine
        check_compiler(settings, device)
        if settings.compile:
            self.engine.compile()

    def backward(self, loss: torch.Tensor) -> None:
        # DeepSpeed takes the mean over ranks and micro-steps; our loss is already a share of the mean
        self.engine.backward(loss * (dist.get_world_size() * self.accumulate))
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()              # counts the micro-step; the last one is stepped by step()

    def step(self, lr: float) -> float:
        set_rate(self.engine.optimizer.param_groups, lr)
        if self.stage:
            self.engine.step()
            return float(self.engine.get_global_grad_norm())
        # ZeRO leaves out a step of infinite gradients and says their norm, stage 0 does neither
        norm = float(get_total_norm([p.grad for p in self.engine.module.parameters() if p.grad is not None]))
        if math.isfinite(norm):
            self.engine.step()
        else:
            self.drop()
        return norm

    def drop(self) -> None:
        # step() counts the micro-steps, and under ZeRO it forgets gradients whose norm is not finite
        if self.stage == 0:
            self.engine.module.zero_grad(set_to_none=True)
            self.engine.micro_steps += 1
            return
        zero, infinite = self.engine.optimizer, torch.tensor(float("inf"))
        name, norm = ("_get_norm_groups", lambda: [infinite]) if self.stage == 3 else \
            ("scaled_global_norm", lambda: infinite)
        setattr(zero, name, norm)
        try:
            self.engine.step()
        finally:
            delattr(zero, name)

    def pieces(self) -> list[state.Piece]:
        """What this rank steps: everything in stage 0, its part of the flattened parameters in the others."""
        zero, found = self.engine.optimizer, []
        if self.stage == 0:
            return whole(self.engine.module)
        for name, p in self.engine.module.named_parameters():
            if self.stage == 3:
                group, at, size = zero.grad_position[zero.get_param_id(p)]
                first = size * zero._get_param_partition_rank(p)
                length = min(size, p.ds_numel - first)              # the last part is padded
                if length > 0:
                    found.append(state.Piece(name, first, length, zero.fp32_partitioned_groups_flat[group], at))
            elif p._hp_mapping is not None:                         # else other ranks have all of it
                there, here = p._hp_mapping.lp_fragment_address, p._hp_mapping.get_hp_fragment_address()
                held = zero.optimizer.param_groups[p._hp_mapping.param_group_index]["params"][0]
                found.append(state.Piece(name, there.start, there.numel, held, here.start))
        return found

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The one that was given to DeepSpeed."""
        return self.engine.optimizer if self.stage == 0 else self.engine.optimizer.optimizer

    def snapshot(self, copy: bool) -> dict[str, torch.Tensor]:
        mine = self.pieces()
        if self.stage == 0:
            mine = mine[dist.get_rank()::dist.get_world_size()]
        return state.snapshot(mine, self.optimizer, self.bf16, copy)

    def load(self, stored: state.Stored) -> None:
        # DeepSpeed's own checkpoints are pickles, bound to the number of ranks and the stage that wrote them
        zero, module = self.engine.optimizer, self.engine.module
        if self.stage < 3:
            read_weights(module, stored)
            state.restore(self.pieces(), self.optimizer, stored, copies=self.stage > 0)
            return
        zero.checkpoint_event_prologue()                            # puts away what is gathered of parameters
        for name, p in module.named_parameters():
            first = p.ds_tensor.numel() * zero._get_param_partition_rank(p)
            if (length := min(p.ds_tensor.numel(), p.ds_numel - first)) > 0:
                p.ds_tensor.data[:length] = stored.weight(name, first, length).to(p.ds_tensor.device)
        state.restore(self.pieces(), self.optimizer, stored)
        zero.checkpoint_event_epilogue()                            # and gathers what is kept so

    def weights(self) -> dict[str, torch.Tensor]:
        """On every rank for stages 0 to 2; under stage 3 gathered one tensor at a time, whole on rank 0 alone."""
        if self.stage < 3:
            return self.engine.module.state_dict()
        import deepspeed
        gathered = {}
        for name, p in self.engine.module.named_parameters():
            with deepspeed.zero.GatheredParameters([p]):
                if dist.get_rank() == 0:
                    gathered[name] = p.detach().cpu().clone()
        return gathered


@torch.no_grad()
def read_weights(module: torch.nn.Module, stored: state.Stored) -> None:
    """The weights of a checkpoint, tensor by tensor from rank 0: a thousand ranks do not read the same file whole."""
    for name, p in module.named_parameters():
        if dist.get_rank() == 0:
            p.copy_(stored.weight(name, 0, p.numel()).view(p.shape))
        dist.broadcast(p, 0)


def whole(module: torch.nn.Module) -> list[state.Piece]:
    """All parameters, each in one piece."""
    return [state.Piece(name, 0, p.numel(), p, 0) for name, p in module.named_parameters()]


def import_deepspeed(compile_ops: bool, device: torch.device):
    """DeepSpeed for a device, told whether it may build its C++ all-reduce; UserError when it may and no compiler is
    there."""
    os.environ["DS_ACCELERATOR"] = device.type          # it takes a GPU where there is one, whatever was asked for
    os.environ.setdefault("LOCAL_RANK", "0")            # a process without a launcher is the only one
    import deepspeed
    if compile_ops:
        missing = [tool for tool in ("g++", "ninja") if shutil.which(tool) is None]
        if missing:
            raise UserError(f"setting compile_ops: DeepSpeed's build needs {' and '.join(missing)}, not on PATH: "
                            "apt-get install g++ and pip install ninja, or leave it false")
    else:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False     # else the first start compiles for minutes
    deepspeed.init_distributed(dist.get_backend(), verbose=False)
    return deepspeed


def check_compiler(settings: Optimisation, device: torch.device) -> None:
    """UserError where torch.compile, or FlexAttention on a GPU, would find no compiler: for its kernels on CPUs, for
    Triton's launchers on GPUs."""
    asked = ["compile to false"] * settings.compile
    asked += ["attention to sdpa"] * (device.type == "cuda" and settings.attention != "sdpa")
    if not asked:
        return
    known = ("g++", "clang++", "c++") if device.type == "cpu" else ("gcc", "clang", "cc")
    if not os.environ.get("CXX" if device.type == "cpu" else "CC") and not any(map(shutil.which, known)):
        raise UserError(f"setting {asked[0].split()[0]}: torch.compile needs a compiler, and {', '.join(known)} are "
                        f"not on PATH: apt-get install g++, or set {' and '.join(asked)}")


def deepspeed_config(settings: Optimisation, accumulate: int, use_bf16: bool, parameters: int,
                     device: torch.device) -> dict:
    """DeepSpeed's JSON configuration; `settings.deepspeed` is laid over it (see infra/deepspeed), but for what other
    settings decide (see settings.check).

    In bf16 the gradients of micro-steps are added up in fp32, which takes stage 2 at the least. ZeRO puts gradients
    together in a buffer of reduce_bucket_size values, 2 GB at fp32 by default: a model of `parameters` needs no larger
    one.
    """
    bucket = min(BUCKET, parameters)
    zero = {"stage": settings.zero_stage, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    host = {"device": "cpu", "pin_memory": device.type == "cuda"}
    if settings.offload != "none":
        zero["offload_optimizer"] = host
    if settings.offload == "parameters":
        zero["offload_param"] = host
    config = {
        "train_micro_batch_size_per_gpu": settings.micro_batch, "gradient_accumulation_steps": accumulate,
        "gradient_clipping": settings.clip, "bf16": {"enabled": use_bf16}, "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False, "zero_optimization": zero,
        "steps_per_print": 1_000_000_000, "wall_clock_breakdown": False,
    }
    config = overlaid(config, settings.deepspeed)
    if use_bf16 and accumulate > 1:             # else DeepSpeed adds up what micro-steps give in bf16
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        if settings.zero_stage == 1:            # for which it has an optimiser that steps on infinite gradients
            config["zero_optimization"]["stage"] = 2
    return config
