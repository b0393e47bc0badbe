"""What comparing adapters of GPT-3's shape costs, beside other ways to the same numbers, all measured in one run.

python benchmarks/analysis.py
python benchmarks/analysis.py --keep FOLDER --layers 4 --width 1024 --out try.json

Makes a rank-8 and a rank-64 adapter of q and v and their starts, 2.7 GB, in FOLDER or for this run alone. Every job is
done three times, each in a Python process of its own with its imports done and the files in the page cache; the
fastest counts. Gradience is measured where it is installed (`pip install gradience`), and how soon report.html answers
where Playwright and Chromium are.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from math import log
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from markdown_table import in_markdown
from results_file import RESULTS, Results, machine_of, measured_on

if TYPE_CHECKING:
    from torch import Tensor

RANKS = (8, 64)
COMPARE_A, COMPARE_ALL = "`compare(left, right, 'A')`", "`compare(left, right, 'all')`"
SHARED = 4  # directions that both adapters learn at a site
REPEATS = 3
IMPORT = "from deltaw import compare, load_adapter"
DENSE = (1024, 2048)  # widths at which a dense SVD of ΔW is timed
ANALYZE = Path(__file__).resolve().parent.parent / "analyze.py"
PAGE = "report.html"
PAINTED = "() => new Promise(painted => requestAnimationFrame(() => setTimeout(painted)))"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024

Cost = dict[str, Any]  # "seconds"; "megabytes" where memory was measured


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder for the adapters; those that are there are used again")
    parser.add_argument("--layers", type=int, default=96)
    parser.add_argument("--width", type=int, default=12288)
    parser.add_argument("--out", type=Path, default=RESULTS / "analysis.json")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)  # what a child process is told to do
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        args.keep = (args.keep or Path(temporary)).resolve()
        JOBS[args.job](args) if args.job else report(args)


def report(args: argparse.Namespace) -> None:
    """Measure everything."""
    child(args, "make")
    size = sum((folder(args, rank) / WEIGHTS).stat().st_size for rank in RANKS) / 1e6
    imports = [child(args, "imports") for _ in range(REPEATS)]
    results = Results(args.out, **measured_on())
    results.note(layers=args.layers, width=args.width, megabytes=size, repeats=REPEATS, threads=imports[0]["threads"])
    for name in ("import torch", "import deltaw", IMPORT):
        results.add(group="imports, one after the other", what=f"`{name}`", seconds=min(cost[name] for cost in imports))

    show = partial(add, results, "φ on A")
    on_A = best(args, "compare_a")
    show(COMPARE_A, on_A, on_A)
    show("φ alone: `similarity(A, A)` at every site", best(args, "similarity"), on_A)
    show("φ alone: thin SVD of A", best(args, "svd"), on_A)
    show("φ alone: QR of Aᵀ, then a small SVD", best(args, "qr"), on_A)

    show = partial(add, results, "ΔW, output side")
    ours, dense = best(args, "compare_output"), best(args, "dense")
    show("`compare(left, right, 'output')`", ours, ours)
    show("dense SVD in float32, both adapters, extrapolated", dense, ours)
    tool = f"Gradience {version('gradience')}" if find_spec("gradience") else None
    if tool:
        show(f"principal angles alone: {tool}, `merge_audit`", best(args, "gradience"), ours)

    ours = best(args, "compare_all")
    add(results, "A, A − A₀, ΔW's input and output side", COMPARE_ALL, ours, ours)

    show = partial(add, results, "a whole process")
    ours = process(args, [ANALYZE, *analysis(args)])
    show("`python analyze.py`: tables of three bases, fig6, summary, report.html", ours, ours)
    of_page = best(args, "page")
    show("of that, report.html", of_page, ours)
    if tool:
        left, right = (folder(args, rank) for rank in RANKS)
        audit: list[str | Path] = ["-m", "gradience.cli", "merge-audit", "--adapter-a", left, "--adapter-b", right]
        show(f"`gradience merge-audit` ({tool})", process(args, audit), ours)

    results.note(
        page={"megabytes": of_page["page"], **in_browser(args)},
        dense_seconds=dict(zip(map(str, DENSE), dense["each"], strict=True)),
        largest_difference_from_compare=differences(args),
    )
    print(table(results.found), args.out, sep="\n\n")


def add(results: Results, group: str, what: str, cost: Cost, ours: Cost) -> None:
    """Note what a job cost, and its time beside that of ours."""
    seconds = cost["seconds"]
    memory = {"megabytes": cost["megabytes"]} if "megabytes" in cost else {}
    results.add(group=group, what=what, seconds=seconds, **memory, ratio=seconds / ours["seconds"])


def in_browser(args: argparse.Namespace) -> Cost:
    """Seconds until the page's map answers, all is drawn, and another scale is; none without Chromium."""
    if not CHROMIUM or find_spec("playwright") is None:
        return {}
    costs = [child(args, "browser") for _ in range(REPEATS)]
    return {f"{what}_s": min(cost[what] for cost in costs) for what in ("usable", "drawn", "answered")}


def table(found: dict[str, Any]) -> str:
    """Seconds and memory of every job; then what they say of the page, of dense SVDs and of differences."""
    rows = [
        [
            row["group"],
            row["what"],
            in_short(row["seconds"]),
            f"{row['megabytes']:,.0f}" if "megabytes" in row else "",
            in_short(row["ratio"]) if "ratio" in row else "",
        ]
        for row in found["results"]
    ]
    jobs = in_markdown(["", "", "seconds", "memory in MB", "time, ours = 1"], rows, words=2)
    (narrow, fast), (wide, slow) = ((int(width), seconds) for width, seconds in found["dense_seconds"].items())
    power = log(slow / fast) / log(wide / narrow)
    far = ", ".join(f"{name} {far:.0e}" for name, far in found["largest_difference_from_compare"].items())
    return "\n\n".join(
        [
            f"Two adapters of q and v in {found['layers']} layers of width {found['width']}, "
            f"{found['megabytes']:,.0f} MB in float32; {found['threads']} threads; the fastest of {found['repeats']}:",
            jobs,
            f"{_of_page(found['page'])} One dense SVD took {fast:.2f} s at width {narrow} and {slow:.2f} s at width "
            f"{wide}, a power of {power:.1f} of the width; the rest is its cube. Largest difference of φ on A from "
            f"that of `compare`: {far}.",
        ]
    )


def _of_page(page: dict[str, float]) -> str:
    answers = (
        f"; in Chromium its map answers {page['usable_s']:.2f} s after opening it, all is drawn after "
        f"{page['drawn_s']:.2f} s, and another scale {page['answered_s']:.2f} s after the choice"
        if "usable_s" in page
        else ""
    )
    return f"`report.html` has {page['megabytes']:.1f} MB{answers}."


def sentence(found: dict[str, Any]) -> str:
    """What φ costs."""
    costs = {row["what"]: row for row in found["results"]}
    on_A, on_all = costs[COMPARE_A], costs[COMPARE_ALL]
    return (
        f"φ on A at {2 * found['layers']} sites of GPT-3's shape takes {on_A['seconds']:.1f} s and, beyond the "
        f"imports, {on_A['megabytes']:.0f} MB on {machine_of(found)}; with the bases `update`, `input` and `output` it "
        f"takes {on_all['seconds']:.1f} s."
    )


def in_short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def differences(args: argparse.Namespace) -> dict[str, float]:
    """The largest of φ on A, of the other ways, from that of `compare`."""
    import numpy as np

    ours = np.load(args.keep / "compare_a.npy")
    return {job: float(np.abs(np.load(args.keep / f"{job}.npy") - ours).max()) for job in ("similarity", "svd", "qr")}


def child(args: argparse.Namespace, job: str) -> Cost:
    """What a job printed, done in a fresh process."""
    print(job, file=sys.stderr, flush=True)
    shape = [f"--keep={args.keep}", f"--layers={args.layers}", f"--width={args.width}"]
    done = subprocess.run([sys.executable, __file__, f"--job={job}", *shape], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def best(args: argparse.Namespace, job: str) -> Cost:
    return min((child(args, job) for _ in range(REPEATS)), key=lambda cost: cost["seconds"])


def process(args: argparse.Namespace, words: list[str | Path]) -> Cost:
    """What a whole Python process cost at best, started where there are no runs."""
    costs = []
    for _ in range(REPEATS):
        print(*words, file=sys.stderr, flush=True)
        start = perf_counter()
        started = subprocess.Popen([sys.executable, *words], cwd=args.keep, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(started.pid, 0)
        if status:
            sys.exit("it failed")
        costs.append({"seconds": perf_counter() - start, "megabytes": usage.ru_maxrss * MAXRSS_BYTES / 1e6})
    return min(costs, key=lambda cost: cost["seconds"])


@contextmanager
def measured() -> Iterator[None]:
    """Print what the block cost."""
    before, start = peak(), perf_counter()
    yield
    print(json.dumps({"seconds": perf_counter() - start, "megabytes": (peak() - before) / 1e6}))


def peak() -> int:
    """Bytes. A process begins with what its parent had, so that `main` itself imports nothing large."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES


def folder(args: argparse.Namespace, rank: int, start: bool = False) -> Path:
    return args.keep / f"{args.layers}x{args.width}-r{rank}{'-start' if start else ''}"


def modules(args: argparse.Namespace) -> list[str]:
    """In the order of the sites."""
    layers = (f"base_model.model.model.layers.{layer}.self_attn" for layer in range(args.layers))
    return [f"{layer}.{projection}_proj" for layer in layers for projection in "qv"]


def make(args: argparse.Namespace) -> None:
    """The adapters and their starts, where they are not there yet; and the files into the page cache.

    A is the usual start, and a tenth as large what was learned: a few directions that all ranks share, and noise.
    """
    import torch
    from safetensors.torch import save_file

    for rank in RANKS:
        if (folder(args, rank) / CONFIG).exists():
            for path in (folder(args, rank), folder(args, rank, start=True)):
                (path / WEIGHTS).read_bytes()
            continue
        final, start = {}, {}
        for number, module in enumerate(modules(args)):
            common = torch.Generator().manual_seed(number)
            own = torch.Generator().manual_seed(number + 10_000 * rank)
            shared = torch.randn(SHARED, args.width, generator=common)
            learned = torch.randn(rank, SHARED, generator=own) @ shared + torch.randn(rank, args.width, generator=own)
            A = torch.empty(rank, args.width).uniform_(-1, 1, generator=own) / args.width**0.5
            start[f"{module}.lora_A.weight"] = A
            start[f"{module}.lora_B.weight"] = torch.zeros(args.width, rank)
            final[f"{module}.lora_A.weight"] = A + 0.1 * learned / args.width**0.5
            final[f"{module}.lora_B.weight"] = 0.01 * torch.randn(args.width, rank, generator=own)
        config = {"peft_type": "LORA", "base_model_name_or_path": f"{args.layers}x{args.width}", "r": rank}
        config |= {"lora_alpha": rank, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
        for tensors, path in ((start, folder(args, rank, start=True)), (final, folder(args, rank))):
            path.mkdir(parents=True, exist_ok=True)
            save_file(tensors, path / WEIGHTS)
            (path / CONFIG).write_text(json.dumps(config))  # last: a killed run leaves no adapter that counts
    print("{}")


def imports(_: argparse.Namespace) -> None:
    times = [perf_counter()]
    import torch

    times.append(perf_counter())
    import deltaw  # noqa: F401

    times.append(perf_counter())
    from deltaw import compare, load_adapter  # noqa: F401

    times.append(perf_counter())
    seconds = {name: times[k + 1] - times[k] for k, name in enumerate(("import torch", "import deltaw", IMPORT))}
    print(json.dumps(seconds | {"threads": torch.get_num_threads()}))


def compare_a(args: argparse.Namespace) -> None:
    import numpy as np

    from deltaw import compare, load_adapter

    with measured():
        left, right = (load_adapter(folder(args, rank)) for rank in RANKS)
        table = compare(left, right, basis="A").phi
    np.save(args.keep / "compare_a.npy", table.phi.to_numpy().reshape(-1, *RANKS))


def compare_output(args: argparse.Namespace) -> None:
    from deltaw import compare, load_adapter

    with measured():
        left, right = (load_adapter(folder(args, rank)) for rank in RANKS)
        compare(left, right, basis="output")


def compare_all(args: argparse.Namespace) -> None:
    from deltaw import compare, load_adapter

    with measured():
        left, right = (load_adapter(folder(args, rank), start=folder(args, rank, start=True)) for rank in RANKS)
        compare(left, right, basis="all")


def similarity(args: argparse.Namespace) -> None:
    import numpy as np

    from deltaw import load_adapter, similarity

    with measured():
        left, right = (load_adapter(folder(args, rank)) for rank in RANKS)
        found = [similarity(left.A(site), right.A(site)) for site in left.sites]
    np.save(args.keep / "similarity.npy", np.stack(found))


def textbook(args: argparse.Namespace) -> None:
    """φ by the right-singular vectors themselves, as `args.job` finds them: "svd" or "qr"."""
    import numpy as np
    import torch
    from safetensors import safe_open

    def directions(A: "Tensor") -> "Tensor":
        if args.job == "svd":
            return torch.linalg.svd(A.double(), full_matrices=False).Vh
        Q, R = torch.linalg.qr(A.double().T)
        return torch.linalg.svd(R.T).Vh @ Q.T

    i, j = (torch.arange(1, rank + 1) for rank in RANKS)
    smaller = torch.minimum(i[:, None], j)
    with measured():
        found = []
        with (
            safe_open(folder(args, RANKS[0]) / WEIGHTS, "pt") as left,
            safe_open(folder(args, RANKS[1]) / WEIGHTS, "pt") as right,
        ):
            for module in modules(args):
                low, high = (directions(file.get_tensor(f"{module}.lora_A.weight")) for file in (left, right))
                found.append((low @ high.T).square().cumsum(0).cumsum(1) / smaller)
    np.save(args.keep / f"{args.job}.npy", np.stack(found))


def dense(args: argparse.Namespace) -> None:
    import torch

    each = []
    for width in DENSE:
        update = torch.randn(width, RANKS[1]) @ torch.randn(RANKS[1], width)
        start = perf_counter()
        torch.linalg.svd(update)
        each.append(perf_counter() - start)
    times = len(RANKS) * len(modules(args))
    print(json.dumps({"seconds": times * each[-1] * (args.width / DENSE[-1]) ** 3, "each": each}))


def page(args: argparse.Namespace) -> None:
    from deltaw.entry.analyze import main as analyze
    from deltaw.report import page

    write, seconds = page.write, list[float]()

    def timed(*given: Any) -> None:
        start = perf_counter()
        write(*given)
        seconds.append(perf_counter() - start)

    page.write = timed  # type: ignore[assignment]
    sys.argv = ["analyze", *analysis(args)]
    with redirect_stdout(sys.stderr):
        analyze()
    print(json.dumps({"seconds": seconds[0], "page": (args.keep / "analysis" / PAGE).stat().st_size / 1e6}))


def browser(args: argparse.Namespace) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started, started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as one:
        tab = one.new_page()
        start = perf_counter()
        tab.goto((args.keep / "analysis" / PAGE).as_uri(), wait_until="commit")
        tab.wait_for_selector("#map .heatmaplayer image", state="attached")
        tab.select_option("#measure", "first")
        tab.evaluate(PAINTED)
        usable = perf_counter()
        tab.wait_for_selector("html[data-ready=yes]")
        drawn = perf_counter()
        tab.select_option("#scale", "chance")
        tab.evaluate(PAINTED)
        times = {"usable": usable - start, "drawn": drawn - start, "answered": perf_counter() - drawn}
        print(json.dumps(times))


def analysis(args: argparse.Namespace) -> list[str]:
    """The settings of an analysis of both adapters."""
    left, right = (folder(args, rank) for rank in RANKS)
    return [f"left={left}", f"right={right}", f"output={args.keep / 'analysis'}", "exhibits=[fig6]"]


def gradience(args: argparse.Namespace) -> None:
    from gradience.vnext.merge import merge_audit  # type: ignore[import-not-found]

    with measured():
        merge_audit(*(folder(args, rank) for rank in RANKS))


JOBS = {
    "make": make,
    "imports": imports,
    "compare_a": compare_a,
    "compare_output": compare_output,
    "compare_all": compare_all,
    "similarity": similarity,
    "svd": textbook,
    "qr": textbook,
    "dense": dense,
    "page": page,
    "browser": browser,
    "gradience": gradience,
}


if __name__ == "__main__":
    main()
