# Who may know whom: awk -f tools/rooms.awk tools/rooms.txt src/...
# rooms.txt says "room: the rooms it may include"; a file outside every room is an error too.
FNR == NR {
    split($0, part, /: */)
    known[part[1]] = 1
    ok[part[1], part[1]] = 1
    n = split(part[2], may, " ")
    for (i = 1; i <= n; i++)
        ok[part[1], may[i]] = 1
    next
}
FNR == 1 {
    path = FILENAME
    sub(/^.*src\//, "", path)
    me = room(path)
    if (me == "")
        complain("stands in no room of tools/rooms.txt")
}
/^[ \t]*#[ \t]*include[ \t]+"/ {
    split($0, quoted, "\"")
    to = room(quoted[2])
    if (to != "" && !((me, to) in ok))
        complain(me " must not include " quoted[2])
    if (to == "" && quoted[2] !~ /^xinfer\// && me !~ /^backends\//)
        complain("\"" quoted[2] "\": includes are written from src/ (\"room/file.h\")")
    if (quoted[2] == "xinfer/engine.h" && me !~ /^(host|backends\/.*|ipc|daemon\/ipc|daemon\/core)$/)
        complain(me " must not include the engine ABI")
}
# What an operating system without POSIX has to replace lies in one room.
/^[ \t]*#[ \t]*include[ \t]+<(sys\/(mman|eventfd|socket|un|epoll)|spawn|netinet\/.*|arpa\/.*)\.h>/ {
    if (me != "base/platform")
        complain("only base/platform may include " $NF)
}
# The sandbox is Linux's own.
/^[ \t]*#[ \t]*include[ \t]+<(linux\/(landlock|seccomp|filter|audit)|sys\/prctl)\.h>/ {
    if (me != "base/platform" && path !~ /^host\/(sandbox|landlock|seccomp)[a-z_]*\.[ch]$/)
        complain("only the host's sandbox and base/platform may include " $NF)
}
function room(name,   r, best) {
    best = ""
    for (r in known)
        if (index(name, r "/") == 1 && length(r) > length(best))
            best = r
    return best
}
function complain(what) {
    printf "%s:%d: %s\n", FILENAME, FNR, what
    bad = 1
}
END { exit bad }
