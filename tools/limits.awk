# No function over 70 code lines, no file over 800 lines, no header over 250 (include/ is public: 800).
# A function is what clang-format lays out with its braces in the first column; blank lines and
# lines that are only comment don't count.
BEGIN { max_function = 70; max_file = 800; max_header = 250 }
FNR == 1 { check_file(); file = FILENAME; in_function = 0; in_comment = 0 }
{ lines = FNR }
/^\{/ { in_function = 1; first = FNR; code = 0; next }
/^\}/ {
    if (in_function && code > max_function) {
        printf "%s:%d: function of %d lines, %d allowed\n", file, first, code, max_function
        bad = 1
    }
    in_function = 0
}
in_function && !is_comment() && NF { code++ }
function is_comment(   text) {
    text = $0
    if (in_comment) {
        if (text ~ /\*\//)
            in_comment = 0
        return 1
    }
    if (text ~ /^[ \t]*\/\//)
        return 1
    if (text ~ /^[ \t]*\/\*/) {
        if (text !~ /\*\//)
            in_comment = 1
        return 1
    }
    return 0
}
function check_file(   max) {
    max = file ~ /\.h$/ && file !~ /^include\// ? max_header : max_file
    if (lines > max) {
        printf "%s:%d: file of %d lines, %d allowed\n", file, lines, lines, max
        bad = 1
    }
}
END { check_file(); exit bad }
