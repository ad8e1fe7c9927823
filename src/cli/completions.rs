//! `h-realtime completions`: shell completion scripts.
//!
//! clap_complete generates the scripts for bash and zsh. Its bash script does not work for a
//! program with a hyphen in its name. Its fish script supports neither a third level of commands
//! nor positional arguments, so the fish script is generated here.

use std::fmt::Write as _;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, ValueHint};
use clap_complete::Shell;

/// Returns the script for a shell.
pub(super) fn script(shell: Shell, mut command: Command) -> String {
    command = with_hints(command);
    let name = command.get_name().to_owned();
    match shell {
        Shell::Fish => fish(command),
        Shell::Bash => {
            // The function names of the program's commands contain the program's name, both with
            // hyphens and without. Only the last line concerns the program itself.
            let word = name.replace('-', "_");
            let text = generated(shell, &mut command, &word);
            text.replace(
                &format!("-o default {word}\n"),
                &format!("-o default {name}\n"),
            )
        }
        shell => generated(shell, &mut command, &name),
    }
}

fn generated(shell: Shell, command: &mut Command, name: &str) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, command, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Adds the values of arguments that are validated as settings and are therefore plain text to
/// clap.
fn with_hints(command: Command) -> Command {
    let mut command = command.mut_args(|arg| {
        let values: &[&str] = match arg.get_long() {
            Some("log-level") => &["error", "warn", "info", "debug", "trace"],
            Some("log-format") => &["text", "journal", "json", "auto"],
            Some("tls-cert" | "tls-key" | "config") => return arg.value_hint(ValueHint::FilePath),
            Some("data") => return arg.value_hint(ValueHint::DirPath),
            _ => return arg,
        };
        arg.value_parser(PossibleValuesParser::new(values.to_vec()))
    });
    let subcommands: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in subcommands {
        command = command.mut_subcommand(name, with_hints);
    }
    command
}

/// Generates a function that determines the command from the words before the cursor, and one line
/// for each possible completion.
fn fish(mut command: Command) -> String {
    command.build();
    let program = command.get_name().to_owned();
    let mut paths = Vec::new();
    let mut with_value = Vec::new();
    let mut lines = String::new();
    let mut add = |path: &str, command: &Command| {
        if !path.is_empty() {
            paths.push(format!("'{path}'"));
        }
        for arg in command.get_arguments().filter(|arg| takes_value(arg)) {
            with_value.extend(flags(arg));
        }
        for line in lines_of(command) {
            let _ = writeln!(
                lines,
                "complete -c {program} -n \"__h_realtime_at '{path}'\" {line}"
            );
        }
    };
    walk("", &command, &mut add);
    with_value.sort();
    with_value.dedup();
    format!(
        "# Returns whether the words before the cursor name the command $argv[1], ignoring options.
function __h_realtime_at
    set -l words (commandline -opc)
    set -l path ''
    set -l skip 0
    for word in $words[2..-1]
        if test $skip = 1
            set skip 0
        else if string match -q -- '-*' $word
            contains -- $word {}
            and set skip 1
        else
            set -l next (string trim -- \"$path $word\")
            contains -- $next {}
            and set path $next
        end
    end
    test \"$path\" = \"$argv[1]\"
end

complete -c {program} -f
{lines}",
        with_value.join(" "),
        paths.join(" ")
    )
}

fn walk(path: &str, command: &Command, add: &mut dyn FnMut(&str, &Command)) {
    add(path, command);
    for sub in command.get_subcommands() {
        // Only the top level completes `help`: each command has the flag `--help` for that.
        if !sub.is_hide_set() && (sub.get_name() != "help" || path.is_empty()) {
            let path = format!("{path} {}", sub.get_name());
            walk(path.trim(), sub, add);
        }
    }
}

/// Returns the completions of one command, without the condition that selects the command.
fn lines_of(command: &Command) -> Vec<String> {
    let mut lines = Vec::new();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let about = sub.get_about().map(ToString::to_string);
        let about = quoted(&about.unwrap_or_default());
        lines.push(format!("-a '{}' -d {about}", sub.get_name()));
    }
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let about = arg.get_help().map(ToString::to_string);
        let about = quoted(about.unwrap_or_default().lines().next().unwrap_or_default());
        let long = arg.get_long().map(|long| format!("-l {long} "));
        let short = arg.get_short().map(|short| format!("-s {short} "));
        let flag = long.unwrap_or_default() + &short.unwrap_or_default();
        if flag.is_empty() {
            lines.extend(values(arg).map(|values| format!("{values} -d {about}")));
        } else if takes_value(arg) {
            let values = values(arg).unwrap_or_else(|| "-f".to_owned());
            lines.push(format!("{flag}-r {values} -d {about}"));
        } else {
            lines.push(format!("{flag}-d {about}"));
        }
    }
    lines
}

/// Returns the values of an argument, as options of `complete`. `None` if they are unknown.
fn values(arg: &Arg) -> Option<String> {
    let possible = arg.get_possible_values();
    let names: Vec<&str> = possible
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(clap::builder::PossibleValue::get_name)
        .collect();
    if takes_value(arg) && !names.is_empty() {
        return Some(format!("-f -a '{}'", names.join(" ")));
    }
    match arg.get_value_hint() {
        ValueHint::AnyPath | ValueHint::FilePath => Some("-F".to_owned()),
        ValueHint::DirPath => Some("-f -a '(__fish_complete_directories)'".to_owned()),
        _ => None,
    }
}

fn takes_value(arg: &Arg) -> bool {
    let count = arg.get_num_args();
    count.is_none_or(|count| count.takes_values())
}

fn flags(arg: &Arg) -> Vec<String> {
    let long = arg.get_long().map(|long| format!("--{long}"));
    let short = arg.get_short().map(|short| format!("-{short}"));
    long.into_iter().chain(short).collect()
}

/// Quotes a string in fish's single quotes.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{}'", text.replace('\n', " "))
}
