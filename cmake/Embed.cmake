# cmake -DIN=file -DOUT=file.inc -P Embed.cmake: a file's bytes as a C initialiser.
file(READ "${IN}" bytes HEX)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
file(WRITE "${OUT}" "${bytes}\n")
