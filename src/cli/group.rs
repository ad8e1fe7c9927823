//! `h-realtime group`: groups and their members.

use std::path::Path;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};

use super::console::{Console, with_store};
use super::json;
use crate::backend::embedded::{GroupRow, ReadableBy, Store};
use crate::backend::time;
use crate::exit::Exit;
use crate::model::{Role, UnixMillis};

/// Add, show, change, and delete groups and their members.
#[derive(Debug, Args)]
pub(super) struct GroupArgs {
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

The group __world__, readable by all clients, always exists.")]
    Add {
        /// The id, as in the `group` field of annotations
        id: String,
        /// The receivers of its annotations
        #[arg(long, value_enum, default_value_t = Readers::Members)]
        readable_by: Readers,
    },
    /// Add or remove members
    Member {
        #[command(subcommand)]
        command: MemberCommand,
    },
    /// List all groups and their members
    List {
        /// Print a JSON array of the objects that `show` prints
        #[arg(long)]
        json: bool,
    },
    /// Show a group and its members
    Show {
        /// The group's id
        id: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Change the receivers of a group's annotations
    ///
    /// Takes effect with the next event, also on open connections.
    Set {
        /// The group's id
        id: String,
        /// The receivers of its annotations
        #[arg(long, value_enum)]
        readable_by: Readers,
    },
    /// Delete a group and its memberships
    ///
    /// Its members stop receiving its annotations immediately. The id is kept as that of a private
    /// group without members, so that annotations still published for it do not become public. A
    /// group with this id can be added again.
    Delete {
        /// The group's id
        id: String,
    },
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Add a user to a group, or change a member's role
    ///
    /// Takes effect on open connections within a second.
    Add {
        /// The group's id
        id: String,
        /// The userid
        userid: String,
        /// The role; moderators, admins, and owners also receive hidden annotations
        #[arg(long, default_value = "member", value_parser = roles())]
        role: Role,
    },
    /// Remove a user from a group
    ///
    /// The user's open connections stop receiving its annotations within a second.
    Remove {
        /// The group's id
        id: String,
        /// The userid
        userid: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Readers {
    /// All clients, including anonymous ones
    World,
    /// Members only
    Members,
}

impl Readers {
    fn readable_by(self) -> ReadableBy {
        match self {
            Readers::World => ReadableBy::World,
            Readers::Members => ReadableBy::Members,
        }
    }
}

/// Returns a parser of role names, which help and completions list.
fn roles() -> impl TypedValueParser<Value = Role> {
    let names = [Role::Member, Role::Moderator, Role::Admin, Role::Owner].map(Role::as_str);
    PossibleValuesParser::new(names).try_map(|name| {
        let role = name.parse();
        role.map_err(|()| "unknown role")
    })
}

/// Runs `h-realtime group` on a data directory.
///
/// # Errors
/// [`Exit::NO_USER`] for a user, group, or membership that does not exist, [`Exit::DATA`] for an
/// invalid id or role or a group that exists already, and errors from opening the database.
pub(super) fn run(args: GroupArgs, data: &Path, now: UnixMillis) -> Result<(), Exit> {
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
            let readable_by = readable_by.readable_by();
            store.add_group(&id, readable_by, now)?;
            let readers = readable_by.as_str();
            writeln!(console.out, "added {id}, readable by {readers}")?;
        }
        GroupCommand::Member {
            command: MemberCommand::Add { id, userid, role },
        } => {
            store.set_member(&id, &userid, role)?;
            writeln!(console.out, "{userid} is {} of {id}", role.as_str())?;
        }
        GroupCommand::Member {
            command: MemberCommand::Remove { id, userid },
        } => {
            store.remove_member(&id, &userid)?;
            writeln!(console.out, "{userid} is no longer in {id}")?;
        }
        GroupCommand::List { json: true } => {
            let array: Vec<_> = store.groups()?.iter().map(json::group).collect();
            json::print(&array.into(), console)?;
        }
        GroupCommand::List { json: false } => {
            let rows = table(&store.groups()?);
            console.table(&rows, "There are no groups.")?;
        }
        GroupCommand::Show { id, json: true } => {
            json::print(&json::group(&store.group(&id)?), console)?;
        }
        GroupCommand::Show { id, json: false } => show(&store.group(&id)?, console)?,
        GroupCommand::Set { id, readable_by } => {
            let readable_by = readable_by.readable_by();
            store.set_readable_by(&id, readable_by)?;
            let readers = readable_by.as_str();
            writeln!(console.out, "{id} is readable by {readers}")?;
        }
        GroupCommand::Delete { id } => {
            store.delete_group(&id, now)?;
            writeln!(console.out, "deleted {id}")?;
        }
    }
    Ok(())
}

fn show(group: &GroupRow, console: &mut Console<'_>) -> Result<(), Exit> {
    let mut lines = vec![
        ("id", group.id.clone()),
        ("readable by", group.readable_by.as_str().to_owned()),
        ("added", time::format_human(group.created)),
    ];
    for (userid, role) in &group.members {
        lines.push(("member", format!("{userid}, {}", role.as_str())));
    }
    console.fields(&lines, 11)
}

/// Returns one row for each member. A group without members has a row of its own.
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
    use crate::cli::console::{Case, assert_cases};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: GroupArgs,
    }

    #[test]
    fn each_command_has_expected_output_and_exit_code() {
        const JOE: &str = "acct:joe@example.org";
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("db")).unwrap();
        store.add_user(JOE, None, 0).unwrap();
        let list = "\
ID         READABLE BY  MEMBER                ROLE
__world__  world        -                     -
club       members      acct:joe@example.org  owner
open       world        -                     -\n";
        let club = "\
id           club
readable by  members
added        1970-01-01 00:00:00 UTC
member       acct:joe@example.org, owner\n";
        let club_as_json = concat!(
            r#"{"id":"club","readable_by":"members","created":"1970-01-01T00:00:00.000Z","#,
            r#""members":[{"userid":"acct:joe@example.org","role":"owner"}]}"#,
            "\n"
        );
        let empty = |id: &str| {
            format!(
                r#"{{"id":"{id}","readable_by":"world","created":"1970-01-01T00:00:00.000Z","members":[]}}"#
            )
        };
        let (world, open) = (empty("__world__"), empty("open"));
        let as_json = format!("[{world},{},{open}]\n", club_as_json.trim_end());
        #[rustfmt::skip]
        let cases: &[Case<'_>] = &[
            (&["add", "club"], Ok("added club, readable by members\n")),
            (&["add", "open", "--readable-by", "world"], Ok("added open, readable by world\n")),
            (&["add", "club"], Err(Exit::DATA)),
            (&["add", "__world__"], Err(Exit::DATA)),
            (&["add", "two words"], Err(Exit::DATA)),
            (&["member", "add", "club", JOE], Ok("acct:joe@example.org is member of club\n")),
            (&["member", "add", "club", JOE, "--role", "owner"], Ok("acct:joe@example.org is owner of club\n")),
            (&["member", "add", "none", JOE], Err(Exit::NO_USER)),
            (&["member", "add", "club", "acct:none@example.org"], Err(Exit::NO_USER)),
            (&["list"], Ok(list)),
            (&["list", "--json"], Ok(&as_json)),
            (&["show", "club", "--json"], Ok(club_as_json)),
            (&["show", "club"], Ok(club)),
            (&["show", "none"], Err(Exit::NO_USER)),
            (&["set", "open", "--readable-by", "members"], Ok("open is readable by members\n")),
            (&["set", "none", "--readable-by", "members"], Err(Exit::NO_USER)),
            (&["set", "__world__", "--readable-by", "members"], Err(Exit::DATA)),
            (&["delete", "open"], Ok("deleted open\n")),
            (&["delete", "open"], Err(Exit::NO_USER)),
            (&["delete", "__world__"], Err(Exit::DATA)),
            (&["member", "remove", "club", JOE], Ok("acct:joe@example.org is no longer in club\n")),
            (&["member", "remove", "club", JOE], Err(Exit::NO_USER)),
        ];
        assert_cases(cases, |line, console| {
            let cli = Cli::try_parse_from([&["group"], line].concat()).unwrap();
            run_on(cli.args.command, &store, console, 0)
        });
    }
}
