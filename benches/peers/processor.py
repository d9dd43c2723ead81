"""llama.cpp's tokens a second of processor time, one thread, on a busy machine.

    benches/peers/processor.py LLAMA_FOLDER MODEL.gguf [ROUNDS]

Each figure is the difference of a long run and a short one, so that loading is
not in it; medians of ROUNDS. Ours are printed by `cargo run --release --example
speed`. Where nothing else runs, run.sh says the same and more.
"""

import os
import resource
import statistics
import subprocess
import sys


def spent(folder, program, arguments):
    def used():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    environment = os.environ | {"LD_LIBRARY_PATH": folder}
    command = [os.path.join(folder, program), *map(str, arguments)]
    subprocess.run(command, env=environment, capture_output=True, check=True)
    return used() - before


def main():
    folder, model = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3

    def single(*arguments):
        return spent(folder, "llama-bench", ["-m", model, "-t", 1, "-r", 1, "--no-warmup", *arguments])

    def batched(sequences, answer):
        sizes = ["-c", 8192, "-npp", 16, "-ntg", answer, "-npl", sequences, "-t", 1, "-tb", 1]
        return spent(folder, "llama-batched-bench", ["-m", model, *sizes])

    figures = {
        "decode": lambda: 32 / (single("-p", 0, "-n", 40) - single("-p", 0, "-n", 8)),
        "prefill 128": lambda: 128 / (single("-p", "128,128", "-n", 0) - single("-p", 128, "-n", 0)),
        "8 answers": lambda: 8 * 16 / (batched(8, 18) - batched(8, 2)),
        "32 answers": lambda: 32 * 16 / (batched(32, 18) - batched(32, 2)),
    }
    for name, measure in figures.items():
        rates = [measure() for _ in range(rounds)]
        print(f"{name:12} {statistics.median(rates):8.1f} ({min(rates):.1f} … {max(rates):.1f})", flush=True)


if __name__ == "__main__":
    main()
