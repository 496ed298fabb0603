"""PyTorch's side of a trial: runs steps when the coordinator asks for them (benchmarks/protocol.ts).

    python runner.py TRIAL.json CONTENDER
"""

import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path

# Lines for the coordinator go to the real stdout; what libraries print goes to stderr.
PROTOCOL = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def say(message):
    PROTOCOL.write(json.dumps(message) + "\n")


def memory_peak():
    """Peak resident bytes of this process; 0 where the system does not say."""
    status = Path("/proc/self/status")  # getrusage would count the parent's from before exec
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def reset_memory_peak():
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # the peak then is that of the whole process


def versions(torch):
    import peft
    import transformers

    config = torch.__config__.show()
    essentials = ("Math Kernel Library", "MKL-DNN", "OpenMP", "CPU capability")
    lines = [line.strip(" -") for line in config.splitlines() if any(e in line for e in essentials)]
    blas = next((part for part in config.split(", ") if "BLAS_INFO=" in part), "").split("BLAS_INFO=")[-1]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "blas": blas,
        "build": lines,
    }


def load_samples(path, torch):
    """Batches and their labels, in the order of the stream, in the memory of the host."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    labels = tensors.pop("labels").long()
    inputs = {name: value if value.is_floating_point() else value.long() for name, value in tensors.items()}
    return [({name: value[i] for name, value in inputs.items()}, labels[i]) for i in range(len(labels))]


def serve(contender, samples, trial, torch):
    done = 0
    on_gpu = trial["device"] == "cuda"
    floats = torch.bfloat16 if trial["precision"] == "bfloat16" else torch.float32

    def to_device(value):
        return value.to(device=trial["device"], dtype=floats if value.is_floating_point() else None)

    for line in sys.stdin:
        request = json.loads(line)
        if request.get("resetPeak"):
            reset_memory_peak()
        seconds, losses, rows = [], [], []
        for _ in range(request["steps"]):
            inputs, labels = samples[done % len(samples)]
            begin = time.perf_counter()
            if on_gpu:
                # As on our side: a step begins with inputs on the host, and ends when its logits are there.
                inputs, target = {name: to_device(value) for name, value in inputs.items()}, to_device(labels)
                logits, propagated = contender.step(inputs, target)
                logits = logits.float().cpu()
            else:
                logits, propagated = contender.step(inputs, labels)
            seconds.append(time.perf_counter() - begin)
            losses.append(torch.nn.functional.cross_entropy(logits, labels).item())
            rows.append(propagated)
            done += 1
        say({"seconds": seconds, "losses": losses, "rows": rows, "peakBytes": memory_peak()})


def main():
    trial = json.loads(Path(sys.argv[1]).read_text())
    import torch

    torch.set_num_threads(trial["threads"])
    torch.set_num_interop_threads(1)
    if trial["device"] == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch finds no GPU")
    import contenders

    contender = contenders.make(sys.argv[2], trial)
    samples = load_samples(trial["samplesFile"], torch)
    say({"ready": versions(torch)})
    serve(contender, samples, trial, torch)


try:
    main()
except Exception as error:
    traceback.print_exc()
    say({"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})
    sys.exit(1)
