#!/bin/bash
# Calls that this house does without: tools/banned.sh FILE...   Prints file:line: what, exits 1 on any.
# Strings and one-line comments are blanked first, so that they may name these functions.
set -euo pipefail
banned='strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atof|alloca|rand|srand|system|popen|tmpnam|mktemp'
for file in "$@"; do
    sed -E 's/"([^"\\]|\\.)*"/""/g; s@//.*@@; s@/\*([^*]|\*[^/])*\*/@@g; s@^[ \t]*\*.*@@' "$file" |
        grep -nE "(^|[^A-Za-z0-9_.>])($banned)[ \t]*\(" |
        sed -E "s@^([0-9]+):[ \t]*@$file:\1: banned call: @" || true
done | { ! grep .; }
