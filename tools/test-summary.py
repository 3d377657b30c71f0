#!/usr/bin/env python3
"""Sums what the runners of tools/test wrote: one row a stage, then the line that counts.

A stage that failed without a failing test of its own (a build, a crash of the runner) counts as
one failure. Exits 1 if anything failed, or if no test ran at all.
"""
import os
import sys
import xml.etree.ElementTree as xml


def counts(path):
    """(passed, failed, skipped) of a JUnit file, as ctest and pytest write them."""
    passed = failed = skipped = 0
    for case in xml.parse(path).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed += 1
        elif "skipped" in kinds or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def stages(folder):
    with open(os.path.join(folder, "stages.tsv")) as f:
        for line in f:
            name, rc, seconds = line.rstrip("\n").split("\t")
            path = os.path.join(folder, name + ".xml")
            try:
                passed, failed, skipped = counts(path)
            except (FileNotFoundError, xml.ParseError):
                passed = failed = skipped = 0
            if int(rc) != 0 and failed == 0:
                failed = 1
            yield name, passed, failed, skipped, int(seconds)


def main(folder):
    rows = list(stages(folder)) if os.path.exists(os.path.join(folder, "stages.tsv")) else []
    print("\n%-16s %7s %7s %8s %8s" % ("stage", "passed", "failed", "skipped", "seconds"))
    for row in rows:
        print("%-16s %7d %7d %8d %8d" % row)
    passed, failed, skipped, seconds = (sum(row[i] for row in rows) for i in (1, 2, 3, 4))
    print("%-16s %7s %7s %8s %8d\n" % ("", "", "", "", seconds))
    if passed + failed == 0:
        failed = 1
        print("no test ran, which counts as a failure")
    print("%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
