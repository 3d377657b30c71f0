#!/usr/bin/env python3
"""Shows what bench/peers/run found: as text, or for docs/benchmarks.md: bench/peers/show.py FILE.json"""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from doors import DOORS, models  # noqa: E402
from sizes import CONTAINER, CONTAINER_SAID, MIB  # noqa: E402

FIELDS = ("rate", "least", "most", "p50_us", "p99_us", "cpu_us", "generator")


def median(values):
    return sorted(values)[len(values) // 2]


def title(cell):
    name, door, concurrency = cell.split("/")
    return "%s, %s, concurrency %s" % (models()[name].title, DOORS[door], concurrency)


def figure(v):
    return "-" if v is None else "%.4g" % v if v < 1000 else "%.0f" % v


def bare(report):
    for name, said in report["bare"].items():
        if said:
            yield (name, *(median([s[k] for s in said]) for k in ("rate", "p50_us", "cpu_us")))


def cells(report):
    """Every cell with what was measured in it, and what was not, and why."""
    for cell in report["asked"]:
        missing = [(k.split(", ", 1)[0], why) for k, why in report["refused"].items() if k.endswith(", " + cell)]
        yield cell, report["cells"].get(cell, {}), missing


def show_cells(report):
    print("\n%-16s %10s %21s %9s %9s %9s %6s" % ("", "rate/s", "(least to most)", "p50 µs", "p99 µs", "CPU µs", "gen."))
    for cell, measured, missing in cells(report):
        print(title(cell))
        for server, f in measured.items():
            print("  %-14s %10.0f %9.0f to %8.0f %9.0f %9.0f %9.1f %5.0f%%" % (
                server, *(f[k] for k in FIELDS[:-1]), 100 * f["generator"]))
        for server, why in missing:
            if not why.startswith("has no"):
                print("    (%s %s)" % (server, why))
    for line in bare(report):
        print("bare engine, %s: %.0f/s, p50 %.0f µs, CPU %.1f µs" % line)
    print("CPU: all processes of the server, for each request; gen.: the load generator's share of one core")


def show_analyzer(found):
    print("\nperf_analyzer, unchanged, identity at concurrency 8 (not judged: it takes both cores for itself)")
    for door, f in found.items():
        print("  %-22s %s" % (door, "FAILED: " + f["failed"] if "failed" in f else "%8.0f/s, mean latency %.0f µs" % (
            f["rate"], f["latency_us"])))


def show_sizes(found):
    print("\non the disk, MiB")
    for name, size in found.items():
        print("  %-44s %8.1f" % (name, size / MIB))
    print("  %-44s %8.0f  (%s)" % ("Triton's container, 24.06-py3", CONTAINER / MIB, CONTAINER_SAID))


def show_goals(judged):
    print("\ngoals")
    for g in judged:
        print("  %-6s %-86s %s (goal %s)" % ("met" if g["met"] else "MISSED", g["goal"], figure(g["found"]),
                                             figure(g["wanted"])))
    print("  %d of %d met" % (sum(g["met"] for g in judged), len(judged)))


def show(report):
    show_cells(report)
    for key, what in (("perf_analyzer", show_analyzer), ("sizes", show_sizes), ("goals", show_goals)):
        if key in report:
            what(report[key])


def markdown(report):
    m = report["machine"]
    print("%d cores of an %s, Linux %s; medians of %d interleaved rounds of %g s.\n" % (
        m["cores"], m["cpu"], m["kernel"], report["rounds"], report["seconds"]))
    print("| | requests/s | p50 µs | p99 µs | CPU µs a request | generator, of a core |\n|---|---|---|---|---|---|")
    for cell, measured, _ in cells(report):
        print("| **%s** | | | | | |" % title(cell))
        for server, f in measured.items():
            print("| %s | %.0f | %.0f | %.0f | %.1f | %.0f %% |" % (
                server, f["rate"], f["p50_us"], f["p99_us"], f["cpu_us"], 100 * f["generator"]))
    print("\n| the engine alone | runs/s | p50 µs | CPU µs a run |\n|---|---|---|---|")
    for line in bare(report):
        print("| %s | %.0f | %.0f | %.1f |" % line)
    print("\n| goal | found | wanted | |\n|---|---|---|---|")
    for g in report.get("goals", []):
        print("| %s | %s | %s | %s |" % (g["goal"], figure(g["found"]), figure(g["wanted"]),
                                         "met" if g["met"] else "**missed**"))
    print("\n| on the disk | MiB |\n|---|---|")
    for name, size in report.get("sizes", {}).items():
        print("| %s | %.1f |" % (name, size / MIB))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as f:
        markdown(json.load(f))
