//! `h-realtime man` and `h-realtime completions`: what packages have beside the program, made from
//! its arguments.
//!
//! Both are for whoever makes a package, and do not stand in the list of commands.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::exit::Exit;

/// What `man` takes.
#[derive(Args)]
pub struct ManArgs {
    /// Where the pages go; it must be there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// What `completions` takes.
#[derive(Args)]
pub struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Writes a page of section 1 for the program and for each of its commands.
///
/// # Errors
/// 74 where a file cannot be written.
pub fn man(args: &ManArgs, command: Command) -> Result<(), Exit> {
    clap_mangen::generate_to(command, &args.folder).map_err(|error| {
        let message = format!("{}: {error}", args.folder.display());
        Exit::new(Exit::IO, message)
    })
}

/// Prints the completions for a shell.
///
/// # Errors
/// 74 if nothing can be printed.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), Exit> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut text);
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// Every command that is shown, by its name with dashes, and all its long flags.
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
    fn every_shell_completes_all_flags_of_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "h-realtime", &mut text);
            let text = String::from_utf8(text).unwrap();
            for (name, flags) in all_commands() {
                let word = name.rsplit('-').next().unwrap();
                assert!(text.contains(word), "{shell}: {name}");
                // clap_complete has fish complete no more than two words of a command.
                let is_deep = shell == Shell::Fish && name.starts_with("h-realtime-group-member-");
                for flag in flags.iter().filter(|_| !is_deep) {
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
    fn what_is_for_packages_is_not_in_the_list() {
        let help = Cli::command().render_long_help().to_string();
        assert!(!help.contains("completions"), "{help}");
    }
}
