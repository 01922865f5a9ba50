"""Settings of the process, made before torch is imported: offline, quiet, one device."""

import ctypes
import logging
import os
import platform
import warnings

from .config import RuntimeSettings
from .errors import RequestError

__all__ = ["prepare_process", "set_up_torch"]


def prepare_process() -> None:
    """Keep the libraries off the network, off the terminal and on one device. Must run before they are imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # also silences TRL's telemetry
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # A waiting thread sleeps instead of spinning: with more threads than free cores, spinning makes a step ten times
    # slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # TRL's trainers refuse torch.nn.DataParallel, which transformers uses if it sees several devices
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", os.environ.get("LOCAL_RANK", "0"))
    for name in ("transformers", "trl", "accelerate", "datasets", "peft", "torch", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(transformers|trl|accelerate|peft|torch|datasets|multiprocess)(\..*)?")


def set_up_torch(settings: RuntimeSettings) -> tuple[str, int | None]:
    """Choose and return the device and the number of CPU threads (None on a GPU, where it does not change the result).

    Raises:
        RequestError: cuda is requested but not available, or the run is one of several processes.
    """
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RequestError(
            f"WORLD_SIZE: is {os.environ['WORLD_SIZE']}; expected 1, training runs in one process",
            "start open-instruct without accelerate launch or torchrun",
        )
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    _keep_freed_memory()
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise RequestError('runtime.device: is "cuda", but torch finds no GPU; expected "cpu" or "auto"')
    device = "cuda" if has_cuda and settings.device != "cpu" else "cpu"
    return device, torch.get_num_threads() if device == "cpu" else None


def _keep_freed_memory() -> None:
    # glibc gives large blocks back to the kernel when they are freed, and a step's logits are such blocks: a quarter of
    # the processor time of a small model's step was page faults. With both limits at their highest it keeps the memory.
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold, largest = -1, -3, 2**31 - 1  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(mmap_threshold, largest)
    mallopt(trim_threshold, largest)
