"""What this machine computes with, and what params.yaml makes of it."""

import os
import platform
import shutil
import subprocess
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from lora_compare.cli.doctor import sizes
from lora_compare.cli.doctor.findings import Finding, Project, ok, trouble, warning
from lora_compare.comparison import formats
from lora_compare.errors import ParamsError

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""What a container may use of its processors, as Linux has it."""

NVIDIA = Path("/proc/driver/nvidia/version")
"""What is there where a driver for NVIDIA's GPUs is loaded."""

CPU_INFO = Path("/proc/cpuinfo")

COPIES = 4
"""Numbers kept in memory for each trained one: itself, its gradient, AdamW's two moments."""


def processor(project: Project) -> Finding:
    """Look at the processor, and whether more threads would compute than may run at once."""
    import torch

    from lora_compare.compute.precision import has_fast_bfloat16

    usable = cores()
    try:
        threads = project.params.threads or torch.get_num_threads()
    except ParamsError:
        threads = torch.get_num_threads()
    fast = has_fast_bfloat16(torch.device("cpu"))
    known = {"kind": _cpu_kind(), "cores": usable, "threads": threads, "fast_bfloat16": fast}
    arithmetic = "bfloat16 in hardware" if fast else "bfloat16 not in hardware"
    what = (
        f"{known['kind']}, {_count(usable, 'core')} to use, {_count(threads, 'thread')} "
        f"to train with, {arithmetic}"
    )
    if threads > usable:
        return warning(
            f"{what}: more threads than cores wait for each other",
            f"set training.threads to {usable} in params.yaml, or OMP_NUM_THREADS={usable}",
            **known,
        )
    return ok(what, **known)


def cores() -> int:
    """Return how many processors this process may use at once."""
    there = getattr(os, "sched_getaffinity", None)
    usable = len(there(0)) if there else os.cpu_count() or 1
    if QUOTA.is_file():
        quota, period = QUOTA.read_text(encoding="utf-8").split()[:2]
        if quota != "max":
            usable = min(usable, max(1, int(quota) // int(period)))
    return usable


def gpu(project: Project) -> Finding:
    """Look for a GPU that PyTorch can use, and for one that it cannot."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    if there:
        found = [_cuda(number) for number in range(torch.cuda.device_count())]
        driver = _driver()
        shown = ", ".join(f"{g['name']} with {formats.size(g['memory_bytes'])}" for g in found)
        return ok(f"{shown}, driver {driver}", kind="cuda", driver=driver, devices=found)
    if torch.backends.mps.is_available():
        memory = torch.mps.recommended_max_memory()
        return ok(f"Apple's, {formats.size(memory)} to use", kind="mps", memory_bytes=memory)
    if NVIDIA.exists():
        return _unused(str(said[0].message) if said else "", bool(torch.version.cuda))
    return ok("none that PyTorch can use", kind="none")


def _cuda(number: int) -> dict[str, Any]:
    import torch

    known = torch.cuda.get_device_properties(number)
    return {"name": known.name, "memory_bytes": known.total_memory}


def _unused(said: str, cuda: bool) -> Finding:
    if cuda:
        reason = f": {said.splitlines()[0]}" if said else ""
        return warning(
            f"the NVIDIA GPU of this machine cannot be used{reason}",
            "update NVIDIA's driver to one that the CUDA version of this PyTorch needs "
            "(nvidia-smi shows what it has)",
            kind="none",
        )
    return warning(
        "this machine has an NVIDIA GPU, but this build of PyTorch computes on the CPU alone",
        "install the CUDA build: python -m pip install --force-reinstall torch==2.13.0",
        kind="none",
    )


def _driver() -> str:
    """Return the version of NVIDIA's driver, as far as its own tool says it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.split("\n", 1)[0].strip() or "unknown"


def choice(project: Project) -> Finding:
    """Look which device and which arithmetic the settings mean on this machine."""
    import torch

    from lora_compare.compute.device import choose_device
    from lora_compare.compute.precision import NARROW, choose_precision, has_fast_bfloat16

    training = project.params.training
    try:
        device = choose_device(training.device)
    except ParamsError as error:
        return trouble(error.what, f"set training.device in params.yaml to {error.expected}")
    # Of a model that is not here yet the width is not known; most are too wide to matter.
    width = project.sizes.width if project.sizes else NARROW
    dtype = choose_precision(training.precision, device, width)
    auto = choose_precision("auto", device, width)
    named = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
    known = {"device": device.type, "precision": named[dtype], "auto_precision": named[auto]}
    what = f"{device.type} in {named[dtype]}; precision: auto would take {named[auto]}"
    if dtype == torch.bfloat16 and not has_fast_bfloat16(device):
        return warning(
            f"{what}: without hardware for it, bfloat16 is many times slower here",
            "set training.precision to auto or float32 in params.yaml",
            **known,
        )
    return ok(what, **known)


def memory(project: Project) -> Finding:
    """Compare what the largest method needs at the least with the device's memory."""
    from lora_compare.compute.device import choose_device

    params = project.params
    known_sizes = project.sizes
    if known_sizes is None:
        return ok(f"what {params.model.name} needs is known when base_model has fetched it")
    needed = {
        name: sizes.FLOAT32 * (known_sizes.parameters + (COPIES - 1) * trained)
        for name, trained in known_sizes.trained.items()
    }
    name = max(needed, key=needed.__getitem__)
    there = _memory_of(choose_device(params.training.device).type)
    known = {"method": name, "estimated_bytes": needed[name], "memory_bytes": there}
    what = (
        f"{formats.size(there)}; {name} on {params.model.name} needs about "
        f"{formats.size(needed[name])} and what its batches take"
    )
    if needed[name] > there:
        return trouble(
            what,
            "choose a smaller model.name, or a method that trains less (lora, with "
            "quantization: nf4 the base is held in 4 bit)",
            **known,
        )
    return ok(what, **known)


def _memory_of(device: str) -> int:
    import torch

    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(psutil.virtual_memory().total)


def extras(project: Project) -> Finding:
    """Look for what some settings need beside the locked packages: libraries, a compiler."""
    params = project.params
    quantized = [n for n, m in params.methods.items() if m.lora and m.lora.quantization]
    libraries = []
    if quantized:
        libraries.append((f"{', '.join(quantized)}: quantization", "bitsandbytes", "qlora"))
    if params.model.kind != "gpt":
        libraries.append((f"model.name: {params.model.name}", "transformers", "hub"))
    for who, library, extra in libraries:
        if find_spec(library) is None:
            what = f"{who} needs {library}, which is not installed"
            return trouble(what, f'pip install -e ".[{extra}]"')
    compiler = os.environ.get("CXX") or "g++"
    compiles = params.training.compile and not _on_cuda(params.training.device)
    if compiles and shutil.which(compiler) is None:
        return trouble(
            f"training.compile needs a C++ compiler, and there is no {compiler}",
            "install one (Debian, Ubuntu: apt install g++), or set training.compile to false",
        )
    needed = [library for _, library, _ in libraries] + ["a C++ compiler"] * compiles
    return ok(f"{' and '.join(needed)}: there" if needed else "nothing that params.yaml needs")


def _on_cuda(device: str) -> bool:
    import torch

    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def _cpu_kind() -> str:
    if CPU_INFO.is_file():
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        if name := next(names, ""):
            return name
    return platform.processor() or platform.machine()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
