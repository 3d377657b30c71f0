"""The goals, judged on one run's figures. A goal that could not be measured is missed."""

# A Triton with a native backend, measured on two cores before this server was built.
TRITON_GRPC, TRITON_BINARY = 16000, 27000
MINE = "xInfer"


def value(figures, cell, what, name=MINE):
    return figures.get(cell, {}).get(name, {}).get(what)


def at_least(text, found, wanted):
    return {"goal": text, "wanted": wanted, "found": found, "met": found is not None and found >= wanted}


def at_most(text, found, wanted):
    return {"goal": text, "wanted": wanted, "found": found,
            "met": found is not None and wanted is not None and found <= wanted}


def median(values):
    return sorted(values)[len(values) // 2] if values else None


def ratio(a, b):
    return None if a is None or not b else a / b


def in_this_run(figures, cell, times):
    """Against the fastest Triton of this run, whatever the machine."""
    best = max((value(figures, cell, "rate", n) or 0 for n in ("Triton native", "Triton Python")), default=0)
    return at_least("%s: rate over the fastest Triton in this run" % cell,
                    ratio(value(figures, cell, "rate"), best), times)


def cheaper(cell, servers):
    """CPU a request against every peer's in that cell."""
    mine = servers.get(MINE, {}).get("cpu_us")
    peers = {n: f["cpu_us"] for n, f in servers.items() if n != MINE}
    if not peers:
        return []
    least = min(peers, key=peers.get)
    return [at_most("%s: CPU µs a request, below the least of the peers (%s)" % (cell, least), mine, peers[least])]


def judge_rates(figures):
    return {"identity/grpc/8": [
                at_least("identity over gRPC, requests/s: 2 × 16,000", value(figures, "identity/grpc/8", "rate"),
                         2 * TRITON_GRPC), in_this_run(figures, "identity/grpc/8", 2)],
            "identity/binary/8": [
                at_least("identity over HTTP binary, requests/s: 1.5 × 27,000",
                         value(figures, "identity/binary/8", "rate"), 1.5 * TRITON_BINARY),
                in_this_run(figures, "identity/binary/8", 1.5)]}


def judge_bare(figures, bare):
    alone = median([b["rate"] for b in bare["classifier"]])
    served = max((value(figures, "classifier/%s/8" % d, "rate") or 0 for d in ("binary", "grpc")), default=0)
    frame = median([b["p50_us"] for b in bare["frame"]])
    found = {cell: [at_most("%s: p50 µs, at most bare + 100" % cell, value(figures, cell, "p50_us"),
                            None if frame is None else frame + 100)]
             for cell in ("frame/memory/1", "frame/memory-grpc/1")}
    found["classifier/binary/8"] = [at_least("classifier at concurrency 8: rate over the bare engine's",
                                             ratio(served, alone), 0.8)]
    return found


def judge(figures, bare, asked):
    """Of the cells that were asked for."""
    goals = judge_rates(figures) | judge_bare(figures, bare)
    return [g for cell in asked for g in goals.get(cell, []) + cheaper(cell, figures.get(cell, {}))]
