# Prints the completions of a command line, one per line: complete.bash PROGRAM [WORD…].
# With BASH_COMPLETION=FILE, sources that file first, as an interactive shell does.
set -u
program=$1
shift
[ -z "${BASH_COMPLETION:-}" ] || source "$BASH_COMPLETION"
source <("$program" completions bash)
COMP_WORDS=(h-realtime "$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
COMP_LINE="${COMP_WORDS[*]}"
COMP_POINT=${#COMP_LINE}
COMPREPLY=()
registered=$(complete -p h-realtime) || exit 1
[[ $registered =~ -F\ ([^ ]+) ]] || exit 1
# compopt fails outside of a completion.
compopt() { :; }
"${BASH_REMATCH[1]}" h-realtime "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
# Without a match, bash completes file names if "-o default" is set.
if [ "${#COMPREPLY[@]}" -eq 0 ] && [[ $registered == *"-o default"* ]]; then
  mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
fi
[ "${#COMPREPLY[@]}" -eq 0 ] || printf '%s\n' "${COMPREPLY[@]}"
