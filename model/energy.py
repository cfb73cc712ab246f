"""An estimate of the energy that a run takes on this machine, in joules."""

import ctypes
import os
import re

import torch


class Meter:
    """Reads the energy counter of one GPU (NVML) and this process's CPU time.

    `gpu` is CUDA's number of it, None without one. `how` states where the figure comes from. Without an energy counter
    (GPUs before Volta, parts of a GPU under MIG, CPU) it is CPU seconds times a stated wattage: an estimate of the
    order of magnitude.
    """

    def __init__(self, gpu: int | None, cpu_watts: float):
        self.cpu_watts = cpu_watts
        self.handle = self.nvml = None
        if gpu is not None:
            try:
                self.nvml = ctypes.CDLL("libnvidia-ml.so.1")
                self.handle = ctypes.c_void_p()
                # NVML counts all GPUs of the machine in an order of its own, CUDA those that it is shown: by the UUID
                uuid = f"GPU-{torch.cuda.get_device_properties(gpu).uuid}".encode()
                if self.nvml.nvmlInit_v2() or self.nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(self.handle)):
                    self.nvml = None
                elif self._gpu_joules() is None:
                    self.nvml = None
            except OSError:
                self.nvml = None
        self.start = self._read()

    @property
    def how(self) -> str:
        cpu = f"CPU seconds x {self.cpu_watts:g} W a core"
        return f"NVML energy counter of the GPU + {cpu} (estimate)" if self.nvml else f"{cpu} (estimate)"

    def joules(self) -> float:
        """Joules since the meter was made, of this rank."""
        return self._read() - self.start

    def _gpu_joules(self) -> float | None:
        millijoules = ctypes.c_ulonglong()
        failed = self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle, ctypes.byref(millijoules))
        return None if failed else millijoules.value / 1000

    def _read(self) -> float:
        times = os.times()
        return (times.user + times.system) * self.cpu_watts + ((self._gpu_joules() or 0.0) if self.nvml else 0.0)


# Dense bf16 TFLOP/s of NVIDIA's data sheets, without sparsity, by words of the name that CUDA gives.
PEAK = {"B200": 2250.0, "H100 PCIe": 756.0, "H100 NVL": 835.0, "H200": 989.0, "H100": 989.0, "GH200": 989.0,
        "A100": 312.0, "A800": 312.0, "L40S": 362.0, "L40": 181.0, "A40": 149.7, "A10G": 70.0, "A10": 125.0,
        "L4": 121.0, "RTX 4090": 165.2, "RTX 3090": 71.0}


def peak_flops(name: str) -> float | None:
    """FLOP/s that the GPU of this name could do in bf16; None where its data sheet is not in the table."""
    return next((1e12 * tflops for part, tflops in PEAK.items()     # a Ti or one of a laptop is another chip
                 if re.search(rf"\b{part}\b(?! (?:Ti|D|Laptop)\b)", name)), None)
