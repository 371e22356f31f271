"""Tables: for people while it runs, and as they stand in docs/benchmarks.md."""

import os
import re
import statistics

import cells
import idle


def machine():
    """Where it was measured."""
    with open("/proc/cpuinfo") as info:
        model = re.search(r"^(?:model name|Model|CPU part)\s*:\s*(.+)$", info.read(), re.M)
    with open("/proc/meminfo") as info:
        memory = int(re.search(r"MemTotal:\s+(\d+)", info.read())[1])
    system = os.uname()
    return {
        "cpu": model[1].strip() if model else system.machine,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 20)),
        "kernel": re.match(r"[\d.]+", system.release)[0],
        "architecture": system.machine,
    }


def median(runs, figure):
    return statistics.median(run[figure] for run in runs)


def failed(runs):
    return sum(run["failed"] for run in runs)


def unlogged(runs):
    share = max(run.get("unlogged", 0) for run in runs)
    return f"  {share:.0%} of the requests not in the log" if share > 0.01 else ""


def time(us):
    return f"{us / 1000:.1f} ms" if us >= 10_000 else f"{us / 1000:.2f} ms" if us >= 1000 else f"{us:.0f} µs"


def cpu(us):
    return f"{us:.1f}" if us < 100 else f"{us:.0f}"


def for_people(name, by_subject):
    """One cell, a line a subject."""
    print(f"\n{cells.ALL[name].what} ({name})")
    print(f"  {'':10}{'CPU µs':>9}{'user':>8}{'req/s':>9}{'p50':>10}{'p99':>10}{'MiB':>7}{'busy':>6}{'failed':>8}")
    for subject, runs in by_subject.items():
        values = {figure: median(runs, figure) for figure in runs[0]}
        print(
            f"  {subject:10}{values['cpu_us']:9.2f}{values['user_us']:8.2f}{values['per_second']:9.0f}"
            f"{time(values['p50_us']):>10}{time(values['p99_us']):>10}{values['memory'] / (1 << 20):7.1f}"
            f"{values['busy']:6.2f}{failed(runs):8d}{unlogged(runs)}",
            flush=True,
        )


def idle_for_people(kind, by_subject):
    print(f"\n{idle.KINDS[kind]}: KiB per connection at rest")
    for subject, runs in by_subject.items():
        print(f"  {subject:10}{statistics.median(runs) / 1024:9.2f}", flush=True)


def markdown(result):
    """Everything measured, as docs/benchmarks.md has it."""
    subjects = list(result["versions"])
    place = result["machine"]
    versions = [*result["versions"].items(), *result["tools"].items()]
    print(
        f"Measured on {result['date']}: {place['cpu']}, {place['cores']} cores, {place['memory_gib']} GiB, "
        f"Linux {place['kernel']} ({place['architecture']}).\n{', '.join(f'{name} {version}' for name, version in versions)}."
    )
    measured = result.get("cells", {})
    for title, names in (("The comparison", cells.PEERS), ("Shapes", cells.SHAPES)):
        names = [name for name in names if name in measured]
        if not names:
            continue
        print(f"\n### {title}: CPU per request, in µs (of it in user mode)\n")
        table(subjects, names, measured, lambda runs: f"{cpu(median(runs, 'cpu_us'))} ({cpu(median(runs, 'user_us'))})")
        print(f"\n### {title}: requests per second on one core\n")
        table(subjects, names, measured, lambda runs: f"{median(runs, 'per_second'):,.0f}")
        print(f"\n### {title}: latency, median and 99th percentile\n")
        table(
            subjects, names, measured, lambda runs: f"{time(median(runs, 'p50_us'))}, {time(median(runs, 'p99_us'))}"
        )
        print(f"\n### {title}: memory under load, in MiB\n")
        table(subjects, names, measured, lambda runs: f"{median(runs, 'memory') / (1 << 20):.1f}")
    bad = [
        f"{failed(runs)} of {subject} in `{name}`"
        for name, by_subject in measured.items()
        for subject, runs in by_subject.items()
        if failed(runs)
    ]
    if measured:
        every = [runs for by_subject in measured.values() for runs in by_subject.values()]
        print(f"\nMedians of {span(map(len, every))} runs of {span(run['seconds'] for runs in every for run in runs)} s.")
        print(f"\nFailed requests: {', '.join(bad) or 'none'}.")
    silent = [
        f"{subject} in `{name}`:{unlogged(runs)}"
        for name, by_subject in measured.items()
        for subject, runs in by_subject.items()
        if unlogged(runs)
    ]
    if silent:
        print(f"\n{'; '.join(silent)}.")
    if result.get("idle"):
        print("\n### Memory per connection at rest, in KiB\n")
        kinds = [kind for kind in idle.KINDS if kind in result["idle"]]
        rows(["connection", *subjects])
        for kind in kinds:
            by_subject = result["idle"][kind]
            values = [
                f"{statistics.median(by_subject[subject]) / 1024:.1f}" if by_subject.get(subject) else "–"
                for subject in subjects
            ]
            row([idle.KINDS[kind], *values])


def span(numbers):
    numbers = set(numbers)
    least, most = min(numbers), max(numbers)
    return f"{least}" if least == most else f"{least} to {most}"


def table(subjects, names, measured, value):
    rows(["work", *subjects])
    for name in names:
        of = measured[name]
        row([f"{cells.ALL[name].what} (`{name}`)", *(value(of[s]) if of.get(s) else "–" for s in subjects)])


def rows(head):
    row(head)
    row(["---", *("--:" for _ in head[1:])])


def row(values):
    print(f"| {' | '.join(values)} |")
