//! `h-realtime group`: groups and who is in them.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};

use super::console::{Console, with_store};
use super::exit::Exit;
use crate::backend::embedded::{GroupRow, ReadableBy, Store};
use crate::model::{Role, UnixMillis};

/// Add and list groups, and say who is in them.
#[derive(Debug, Args)]
pub struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Add a group
    #[command(after_help = "\
Example:
  h-realtime group add reading-club
  h-realtime group member add reading-club acct:joe.bloggs@example.org --role moderator

The group __world__, which everybody reads, is always there.")]
    Add {
        /// The id, as in the `group` of annotations
        id: String,
        /// Who hears of its annotations
        #[arg(long, value_enum, default_value_t = Readers::Members)]
        readable_by: Readers,
    },
    /// Add or remove members
    Member {
        #[command(subcommand)]
        command: MemberCommand,
    },
    /// List all groups and their members
    List,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Make a user a member, or change a member's role
    ///
    /// It holds for open connections too, within a second.
    Add {
        /// The group's id
        id: String,
        /// The userid
        userid: String,
        /// member, moderator, admin or owner; all but member also hear of hidden annotations
        #[arg(long, default_value = "member")]
        role: String,
    },
    /// Take a user out of a group
    ///
    /// Their open connections hear no more of it, within a second.
    Remove {
        /// The group's id
        id: String,
        /// The userid
        userid: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Readers {
    /// Everybody, logged in or not
    World,
    /// Its members
    Members,
}

/// Runs `h-realtime group` on a data directory.
///
/// # Errors
/// [`Exit::NO_USER`] for a user, group or membership that is not there, [`Exit::DATA`] for a bad id
/// or role or a group that is there already, and those of opening the database.
pub fn run(args: GroupArgs, data: &Path, now: UnixMillis) -> Result<(), Exit> {
    with_store(data, |store, console| {
        run_on(args.command, store, console, now)
    })
}

fn run_on(
    command: GroupCommand,
    store: &Store,
    console: &mut Console<'_>,
    now: UnixMillis,
) -> Result<(), Exit> {
    match command {
        GroupCommand::Add { id, readable_by } => {
            let readable_by = match readable_by {
                Readers::World => ReadableBy::World,
                Readers::Members => ReadableBy::Members,
            };
            store.add_group(&id, readable_by, now)?;
            let readers = readable_by.as_str();
            writeln!(console.out, "added {id}, readable by {readers}")?;
        }
        GroupCommand::Member {
            command: MemberCommand::Add { id, userid, role },
        } => {
            let role: Role = role.parse().map_err(|()| {
                let what =
                    format!("{role:?} is no role; roles are member, moderator, admin, owner");
                Exit::new(Exit::DATA, what)
            })?;
            store.set_member(&id, &userid, role)?;
            writeln!(console.out, "{userid} is {} of {id}", role.as_str())?;
        }
        GroupCommand::Member {
            command: MemberCommand::Remove { id, userid },
        } => {
            store.remove_member(&id, &userid)?;
            writeln!(console.out, "{userid} is no longer in {id}")?;
        }
        GroupCommand::List => {
            let rows = table(&store.groups()?);
            console.table(&rows, "There are no groups.")?;
        }
    }
    Ok(())
}

/// One line a member; a group without any has a line of its own.
fn table(groups: &[GroupRow]) -> Vec<Vec<String>> {
    let heading = ["ID", "READABLE BY", "MEMBER", "ROLE"].map(str::to_owned);
    let mut rows = vec![heading.to_vec()];
    for group in groups {
        let row = |userid: &str, role: &str| {
            let readers = group.readable_by.as_str();
            [&*group.id, readers, userid, role]
                .map(str::to_owned)
                .to_vec()
        };
        if group.members.is_empty() {
            rows.push(row("-", "-"));
        }
        let members = group.members.iter();
        rows.extend(members.map(|(userid, role)| row(userid, role.as_str())));
    }
    rows
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::console::captured;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: GroupArgs,
    }

    #[test]
    fn what_each_command_prints_and_ends_with() {
        const JOE: &str = "acct:joe@example.org";
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("db")).unwrap();
        store.add_user(JOE, None, 0).unwrap();
        let list = "\
ID         READABLE BY  MEMBER                ROLE
__world__  world        -                     -
club       members      acct:joe@example.org  owner
open       world        -                     -\n";
        #[rustfmt::skip]
        let cases: &[(&[&str], Result<&str, u8>)] = &[
            (&["add", "club"], Ok("added club, readable by members\n")),
            (&["add", "open", "--readable-by", "world"], Ok("added open, readable by world\n")),
            (&["add", "club"], Err(Exit::DATA)),
            (&["add", "__world__"], Err(Exit::DATA)),
            (&["add", "two words"], Err(Exit::DATA)),
            (&["member", "add", "club", JOE], Ok("acct:joe@example.org is member of club\n")),
            (&["member", "add", "club", JOE, "--role", "owner"], Ok("acct:joe@example.org is owner of club\n")),
            (&["member", "add", "club", JOE, "--role", "boss"], Err(Exit::DATA)),
            (&["member", "add", "none", JOE], Err(Exit::NO_USER)),
            (&["member", "add", "club", "acct:none@example.org"], Err(Exit::NO_USER)),
            (&["list"], Ok(list)),
            (&["member", "remove", "club", JOE], Ok("acct:joe@example.org is no longer in club\n")),
            (&["member", "remove", "club", JOE], Err(Exit::NO_USER)),
        ];
        for (line, expected) in cases {
            let cli = Cli::try_parse_from([&["group"], *line].concat()).unwrap();
            let command = cli.args.command;
            let (result, out, _) = captured("", |console| run_on(command, &store, console, 0));
            let got = result.map(|()| out.as_str()).map_err(|exit| exit.code);
            assert_eq!(got, *expected, "{line:?}");
        }
    }
}
