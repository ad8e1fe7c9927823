//! `h-realtime man` and `h-realtime completions`: manual pages and completion scripts.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::completions;
use crate::exit::Exit;

/// Arguments of `man`.
#[derive(Args)]
pub(super) struct ManArgs {
    /// The directory to write the pages to; it is created if absent
    #[arg(value_name = "DIR")]
    #[arg(value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
}

/// Arguments of `completions`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Writes a manual page in section 1 for the program and for each command. Creates the directory.
///
/// # Errors
/// 74 if the directory cannot be created, or a file not be written.
pub(super) fn man(args: &ManArgs, command: Command) -> Result<(), Exit> {
    let failed = |problem: &str, error: io::Error| {
        let message = format!("{}: {problem}: {error}", args.folder.display());
        Exit::new(Exit::IO, message)
    };
    fs::create_dir_all(&args.folder)
        .map_err(|error| failed("the directory cannot be created", error))?;
    clap_mangen::generate_to(command, &args.folder)
        .map_err(|error| failed("a page cannot be written", error))
}

/// Prints the completions for a shell.
///
/// # Errors
/// 74 if the output cannot be written.
pub(super) fn print_completions(args: &CompletionsArgs, command: Command) -> Result<(), Exit> {
    let text = completions::script(args.shell, command);
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

const EXAMPLES: &str = "\
Examples:
  source <(h-realtime completions bash)                    in ~/.bashrc
  h-realtime completions zsh > ~/.zfunc/_h-realtime        a directory in $fpath
  h-realtime completions fish > ~/.config/fish/completions/h-realtime.fish

Packages install the scripts.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// Collects each visible command, by its hyphenated name, with all its long flags.
    fn commands(command: &Command, name: &str, all: &mut Vec<(String, Vec<String>)>) {
        let flags = command.get_arguments().filter_map(|arg| arg.get_long());
        all.push((name.to_owned(), flags.map(str::to_owned).collect()));
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            if sub.get_name() != "help" {
                commands(sub, &format!("{name}-{}", sub.get_name()), all);
            }
        }
    }

    fn all_commands() -> Vec<(String, Vec<String>)> {
        let mut command = Cli::command();
        command.build();
        let mut all = Vec::new();
        commands(&command, "h-realtime", &mut all);
        assert!(all.len() > 6, "{all:?}");
        all
    }

    #[test]
    fn every_command_has_a_page_that_names_all_its_flags() {
        let folder = tempfile::tempdir().unwrap();
        let args = ManArgs {
            folder: folder.path().to_owned(),
        };
        man(&args, Cli::command()).unwrap_or_else(|_| panic!("no pages"));
        let commands = all_commands();
        for (name, flags) in &commands {
            let path = folder.path().join(format!("{name}.1"));
            let page = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {name}.1"));
            let page = page.replace("\\-", "-");
            assert!(page.starts_with(".ie") || page.contains(".TH"), "{name}");
            for flag in flags {
                assert!(page.contains(&format!("--{flag}")), "{name}: --{flag}");
            }
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), commands.len());
    }

    #[test]
    fn man_creates_its_directory_and_refuses_a_file_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let args = ManArgs {
            folder: folder.path().join("share/man"),
        };
        // Twice: an existing directory is not an error.
        for _ in 0..2 {
            man(&args, Cli::command()).unwrap_or_else(|_| panic!("no pages"));
        }
        assert!(args.folder.join("h-realtime.1").exists());

        let args = ManArgs {
            folder: args.folder.join("h-realtime.1"),
        };
        let Err(exit) = man(&args, Cli::command()) else {
            panic!("pages below a file");
        };
        assert_eq!(exit.code, Exit::IO);
        let is_clear = exit.message.contains("h-realtime.1: the directory cannot");
        assert!(is_clear, "{exit:?}");
    }

    #[test]
    fn every_shell_completes_all_flags_of_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = completions::script(shell, Cli::command());
            for (name, flags) in all_commands() {
                let word = name.rsplit('-').next().unwrap();
                assert!(text.contains(word), "{shell}: {name}");
                for flag in &flags {
                    let is_there = match shell {
                        Shell::Fish => text.contains(&format!("-l {flag}")),
                        _ => text.contains(&format!("--{flag}")),
                    };
                    assert!(is_there, "{shell}: {name} --{flag}");
                }
            }
        }
    }

    #[test]
    fn man_and_completions_are_listed_commands() {
        let help = Cli::command().render_long_help().to_string();
        for name in ["completions", "man"] {
            assert!(help.contains(&format!("\n  {name}")), "{help}");
        }
    }
}
