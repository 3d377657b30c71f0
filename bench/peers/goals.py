"""The goals, judged on one run's figures. A goal that could not be measured is missed."""

# A Triton with a native backend, measured on two cores before this server was built.
TRITON_GRPC, TRITON_BINARY = 16000, 27000
MINE, OURS = "xInfer", ("xInfer", "xInfer OpenVINO")


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


def fastest(figures, cells, *names):
    return max((value(figures, c, "rate", n) or 0 for c in cells for n in names), default=0) or None


def judge_rate(figures, cells, text, triton, times):
    """Against what was measured beforehand, and against the fastest Triton of this run."""
    mine = fastest(figures, cells, MINE)
    beside = fastest(figures, cells, "Triton native", "Triton Python")
    found = [at_least("identity over %s, requests/s: %g × %d" % (text, times, triton), mine, times * triton)]
    if beside is not None:
        found.append(at_least("identity over %s: rate over the fastest Triton of this run" % text,
                              ratio(mine, beside), times))
    return found


def cheaper(cell, servers):
    """CPU a request against every peer's in that cell."""
    mine = servers.get(MINE, {}).get("cpu_us")
    peers = {n: f["cpu_us"] for n, f in servers.items() if n not in OURS}
    if not peers:
        return []
    least = min(peers, key=peers.get)
    return [at_most("%s: CPU µs a request, below the least of the peers (%s)" % (cell, least), mine, peers[least])]


def judge_rates(figures):
    return {"identity/grpc/8": judge_rate(figures, ("identity/grpc/8", "identity/grpc-one/8"), "gRPC",
                                          TRITON_GRPC, 2),
            "identity/binary/8": judge_rate(figures, ("identity/binary/8",), "HTTP binary", TRITON_BINARY, 1.5)}


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
