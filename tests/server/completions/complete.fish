# Prints the completions of a command line, a word each: complete.fish PROGRAM LINE.
$argv[1] completions fish | source
complete -C "$argv[2]" | string replace -r "\t.*" ""
exit 0
