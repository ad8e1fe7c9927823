# Prints the completions of a command line, one per line: complete.fish PROGRAM LINE.
$argv[1] completions fish | source
complete -C "$argv[2]" | string replace -r "\t.*" ""
exit 0
