"""What a GPU benchmark runs on, and whether all it needs is there."""

import importlib.util
import sys

NEEDS = ("torch", "torchvision", "numpy")


def main(words: list[str]) -> int:
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        print(f"- {sys.executable} lacks {', '.join(missing)}: install them, or set PYTHON")
        return 1
    import torch
    from gpu_setting import setting_of

    setting = setting_of(words)
    print(f"- torch {torch.__version__}, CUDA {torch.version.cuda}")
    if setting.device.type == "cpu":
        print("- on a CPU: figures mean nothing")
        return 0
    if not torch.cuda.is_available():
        print("- torch sees no GPU here: nothing was measured")
        return 1
    gpu = torch.cuda.get_device_properties(setting.device)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    print(f"- {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {gpu.multi_processor_count} SMs")
    print(f"- bfloat16 in hardware: {'yes' if bf16 else 'no'}")
    print(f"- cuDNN {torch.backends.cudnn.version()}; triton: {has('triton')}")
    return 0


def has(name: str) -> str:
    return "yes" if importlib.util.find_spec(name) else "no, so torch.compile cannot run"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
