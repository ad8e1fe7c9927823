//! `h-realtime user`: who there is.

use std::path::Path;

use clap::{Args, Subcommand};

use super::console::{Console, with_store};
use super::exit::Exit;
use crate::backend::embedded::{Store, UserRow};
use crate::model::UnixMillis;

/// Add, list, mute and delete users.
#[derive(Debug, Args)]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user, so that they can be given tokens and join groups
    #[command(after_help = "\
Example:
  h-realtime user add acct:joe.bloggs@example.org --display-name 'Joe Bloggs'
  h-realtime token create acct:joe.bloggs@example.org")]
    Add {
        /// The userid, as in annotations: acct:NAME@AUTHORITY
        userid: String,
        /// The name shown with the user's annotations
        #[arg(long, value_name = "NAME")]
        display_name: Option<String>,
    },
    /// List all users
    List,
    /// From now on, let nobody but the user see what they annotate (h's NIPSA)
    Mute {
        /// The userid
        userid: String,
    },
    /// End what `mute` began
    Unmute {
        /// The userid
        userid: String,
    },
    /// Delete a user with their tokens and memberships
    ///
    /// Their open connections are closed within a second.
    Delete {
        /// The userid
        userid: String,
    },
}

/// Runs `h-realtime user` on a data directory.
///
/// # Errors
/// [`Exit::NO_USER`] for a user who is not there, [`Exit::DATA`] for a bad userid or one that is
/// there already, and those of opening the database.
pub fn run(args: UserArgs, data: &Path, now: UnixMillis) -> Result<(), Exit> {
    with_store(data, |store, console| {
        run_on(args.command, store, console, now)
    })
}

fn run_on(
    command: UserCommand,
    store: &Store,
    console: &mut Console<'_>,
    now: UnixMillis,
) -> Result<(), Exit> {
    match command {
        UserCommand::Add {
            userid,
            display_name,
        } => {
            store.add_user(&userid, display_name.as_deref(), now)?;
            writeln!(console.out, "added {userid}")?;
        }
        UserCommand::List => {
            let rows = store.users(now)?;
            let none = "There are no users. Add one with: h-realtime user add acct:NAME@AUTHORITY";
            console.table(&table(&rows), none)?;
        }
        UserCommand::Mute { userid } => {
            store.set_muted(&userid, true)?;
            writeln!(console.out, "muted {userid}")?;
        }
        UserCommand::Unmute { userid } => {
            store.set_muted(&userid, false)?;
            writeln!(console.out, "unmuted {userid}")?;
        }
        UserCommand::Delete { userid } => {
            store.delete_user(&userid)?;
            writeln!(console.out, "deleted {userid}")?;
        }
    }
    Ok(())
}

fn table(users: &[UserRow]) -> Vec<Vec<String>> {
    let heading = ["USERID", "MUTED", "TOKENS", "GROUPS", "DISPLAY NAME"];
    let rows = users.iter().map(|user| {
        vec![
            user.userid.clone(),
            if user.muted { "muted" } else { "-" }.to_owned(),
            user.tokens.to_string(),
            user.groups.to_string(),
            user.display_name.clone().unwrap_or_default(),
        ]
    });
    let heading = heading.map(str::to_owned).to_vec();
    std::iter::once(heading).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::console::captured;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: UserArgs,
    }

    #[test]
    fn what_each_command_prints_and_ends_with() {
        const JOE: &str = "acct:joe@example.org";
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("db")).unwrap();
        let list = "\
USERID                MUTED  TOKENS  GROUPS  DISPLAY NAME
acct:joe@example.org  muted  0       0       Joe B.\n";
        let cases: &[(&[&str], Result<&str, u8>)] = &[
            (&["list"], Ok("")),
            (
                &["add", JOE, "--display-name", "Joe B."],
                Ok("added acct:joe@example.org\n"),
            ),
            (&["add", JOE], Err(Exit::DATA)),
            (&["add", "joe"], Err(Exit::DATA)),
            (&["mute", JOE], Ok("muted acct:joe@example.org\n")),
            (&["list"], Ok(list)),
            (&["unmute", JOE], Ok("unmuted acct:joe@example.org\n")),
            (&["delete", JOE], Ok("deleted acct:joe@example.org\n")),
            (&["delete", JOE], Err(Exit::NO_USER)),
            (&["mute", JOE], Err(Exit::NO_USER)),
        ];
        for (line, expected) in cases {
            let cli = Cli::try_parse_from([&["user"], *line].concat()).unwrap();
            let command = cli.args.command;
            let (result, out, _) = captured("", |console| run_on(command, &store, console, 0));
            let got = result.map(|()| out.as_str()).map_err(|exit| exit.code);
            assert_eq!(got, *expected, "{line:?}");
        }
    }

    #[test]
    fn a_data_directory_that_is_a_file_is_a_configuration_error() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let args = Cli::try_parse_from(["user", "list"]).unwrap().args;
        assert_eq!(run(args, temp.path(), 0).unwrap_err().code, Exit::CONFIG);
    }
}
