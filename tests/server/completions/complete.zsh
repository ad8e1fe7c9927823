# Prints the completions of a command line, one per line: complete.zsh FOLDER LINE. The folder has the file
# _h-realtime. The script sends the line and a tab to a shell on a pseudoterminal.
zmodload zsh/zpty || exit 1
export FOLDER=$1 ZDOTDIR=$1
setup=$FOLDER/setup.zsh
cat >$setup <<'SETUP'
PROMPT=
fpath=($FOLDER $fpath)
autoload -Uz compinit
compinit -u -D
setopt no_beep
bindkey '^M' undefined-key
bindkey '^J' undefined-key
bindkey '^I' complete-word
mark() { print -r -- "<>" }
compprefuncs=(mark)
comppostfuncs=(mark exit)
compadd() {
  # These options only query matches.
  if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)* ]]; then
    builtin compadd "$@"
    return
  fi
  local -a hits
  builtin compadd -A hits "$@"
  (( $#hits )) && print -rl -- $hits
  builtin compadd "$@"
}
print -r -- ready
SETUP
zpty shell zsh -f -i
zpty -w shell "source $setup"
while zpty -r shell line; do
  [[ $line == ready* ]] && break
done
zpty -w -n shell "$2"$'\t'
integer marks=0
while zpty -r shell line; do
  line=${line%%[[:space:]]#}
  line=${line//$'\r'/}
  line=${line//$'\n'/}
  if [[ $line == *'<>' ]]; then
    (( ++marks == 2 )) && break
  elif (( marks == 1 )); then
    print -r -- "$line"
  fi
done
zpty -d shell
