//! `h-realtime user`: users of the embedded backend.

use std::path::Path;

use clap::{Args, Subcommand};

use super::console::{Console, with_store};
use super::sanitize::escaped;
use super::{json, token};
use crate::backend::embedded::{Store, UserRow};
use crate::backend::time;
use crate::exit::Exit;
use crate::model::UnixMillis;

/// Add, show, change, mute, and delete users.
#[derive(Debug, Args)]
pub(super) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user, who can then have tokens and join groups
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
    List {
        /// Print a JSON array of the objects that `show` prints
        #[arg(long)]
        json: bool,
    },
    /// Show a user, with all tokens and groups
    Show {
        /// The userid
        userid: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Change the name shown with a user's annotations
    ///
    /// Takes effect with the next event.
    #[command(group = clap::ArgGroup::new("change").required(true))]
    Set {
        /// The userid
        userid: String,
        /// The new name
        #[arg(long, value_name = "NAME", group = "change")]
        display_name: Option<String>,
        /// Remove the name
        #[arg(long, group = "change")]
        no_display_name: bool,
    },
    /// Hide a user's new annotations from all other users (h's NIPSA)
    Mute {
        /// The userid
        userid: String,
    },
    /// Undo `mute`
    Unmute {
        /// The userid
        userid: String,
    },
    /// Delete a user, with all tokens and memberships
    ///
    /// A running server closes the user's open connections within a second.
    Delete {
        /// The userid
        userid: String,
    },
}

/// Runs `h-realtime user` on a data directory.
///
/// # Errors
/// [`Exit::NO_USER`] for a user who does not exist, [`Exit::DATA`] for an invalid userid or one
/// that exists already, and errors from opening the database.
pub(super) fn run(args: UserArgs, data: &Path, now: UnixMillis) -> Result<(), Exit> {
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
        UserCommand::List { json: true } => {
            let mut array = Vec::new();
            let tokens = store.tokens(None)?;
            for user in store.users(now)? {
                let groups = store.groups_of(&user.userid)?;
                array.push(json::user(&user, &tokens, &groups, now));
            }
            json::print(&array.into(), console)?;
        }
        UserCommand::Show { userid, json } => show(&userid, json, store, console, now)?,
        UserCommand::Set {
            userid,
            display_name,
            no_display_name: _,
        } => {
            store.set_display_name(&userid, display_name.as_deref())?;
            match display_name {
                Some(name) => {
                    let name = escaped(&name);
                    writeln!(console.out, "{userid} is shown as {name}")?;
                }
                None => writeln!(console.out, "{userid} is shown without a name")?,
            }
        }
        UserCommand::List { json: false } => {
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

fn show(
    userid: &str,
    as_json: bool,
    store: &Store,
    console: &mut Console<'_>,
    now: UnixMillis,
) -> Result<(), Exit> {
    let user = store.user(userid, now)?;
    let (tokens, groups) = (store.tokens(Some(userid))?, store.groups_of(userid)?);
    if as_json {
        return json::print(&json::user(&user, &tokens, &groups, now), console);
    }
    let mut lines = vec![
        ("userid", user.userid),
        ("display name", user.display_name.unwrap_or("-".to_owned())),
        ("muted", if user.muted { "yes" } else { "no" }.to_owned()),
        ("added", time::format_human(user.created)),
    ];
    for token in &tokens {
        let (id, end) = (token.id.0, token::end(token, now));
        lines.push(("token", format!("{id}, expires: {end}")));
    }
    for (id, role) in &groups {
        lines.push(("group", format!("{id}, {}", role.as_str())));
    }
    console.fields(&lines, 12)
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
    use crate::cli::console::{Case, assert_cases, captured};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: UserArgs,
    }

    #[test]
    fn each_command_has_expected_output_and_exit_code() {
        const JOE: &str = "acct:joe@example.org";
        const NONE: &str = "acct:none@example.org";
        let show = "\
userid        acct:joe@example.org
display name  -
muted         no
added         1970-01-01 00:00:00 UTC\n";
        let as_json = concat!(
            r#"{"userid":"acct:joe@example.org","display_name":null,"muted":false,"#,
            r#""created":"1970-01-01T00:00:00.000Z","tokens":[],"groups":[]}"#,
            "\n"
        );
        let all_as_json = format!("[{}]\n", as_json.trim_end());
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("db")).unwrap();
        let list = "\
USERID                MUTED  TOKENS  GROUPS  DISPLAY NAME
acct:joe@example.org  muted  0       0       Joe B.\n";
        let cases: &[Case<'_>] = &[
            (&["list"], Ok("")),
            (&["list", "--json"], Ok("[]\n")),
            (
                &["add", JOE, "--display-name", "Joe B."],
                Ok("added acct:joe@example.org\n"),
            ),
            (&["add", JOE], Err(Exit::DATA)),
            (&["add", "joe"], Err(Exit::DATA)),
            (
                &["set", JOE, "--no-display-name"],
                Ok("acct:joe@example.org is shown without a name\n"),
            ),
            (&["show", JOE], Ok(show)),
            (&["show", JOE, "--json"], Ok(as_json)),
            (&["list", "--json"], Ok(&all_as_json)),
            (
                &["set", JOE, "--display-name", "Joe B."],
                Ok("acct:joe@example.org is shown as Joe B.\n"),
            ),
            (&["set", JOE, "--display-name", ""], Err(Exit::DATA)),
            (&["set", NONE, "--no-display-name"], Err(Exit::NO_USER)),
            (&["show", NONE], Err(Exit::NO_USER)),
            (&["mute", JOE], Ok("muted acct:joe@example.org\n")),
            (&["list"], Ok(list)),
            (&["unmute", JOE], Ok("unmuted acct:joe@example.org\n")),
            (&["delete", JOE], Ok("deleted acct:joe@example.org\n")),
            (&["delete", JOE], Err(Exit::NO_USER)),
            (&["mute", JOE], Err(Exit::NO_USER)),
        ];
        assert_cases(cases, |line, console| {
            let cli = Cli::try_parse_from([&["user"], line].concat()).unwrap();
            run_on(cli.args.command, &store, console, 0)
        });
    }

    #[test]
    fn tokens_and_groups_of_a_user_are_shown() {
        const JOE: &str = "acct:joe@example.org";
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("db")).unwrap();
        store.add_user(JOE, None, 0).unwrap();
        let secret = |text: &str| crate::model::Secret(text.to_owned());
        store.add_token(JOE, &secret("a"), 0, None).unwrap();
        store.add_token(JOE, &secret("b"), 0, Some(500)).unwrap();
        let readers = crate::backend::embedded::ReadableBy::Members;
        store.add_group("club", readers, 0).unwrap();
        let owner = crate::model::Role::Owner;
        store.set_member("club", JOE, owner).unwrap();
        let run = |json| captured("", |console| show(JOE, json, &store, console, 1_000)).1;
        let text = run(false);
        for line in [
            "token         1, expires: never\n",
            "token         2, expires: 1970-01-01 00:00:00 UTC (expired)\n",
            "group         club, owner\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let value: serde_json::Value = serde_json::from_str(&run(true)).unwrap();
        let expected = serde_json::json!({
            "id": 2, "userid": JOE, "created": "1970-01-01T00:00:00.000Z",
            "expires": "1970-01-01T00:00:00.500Z", "expired": true});
        assert_eq!(value["tokens"][1], expected);
        assert_eq!(value["tokens"][0]["expires"], serde_json::Value::Null);
        assert_eq!(value["groups"][0]["role"], "owner");
    }

    #[test]
    fn a_data_directory_that_is_a_file_is_a_configuration_error() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let args = Cli::try_parse_from(["user", "list"]).unwrap().args;
        assert_eq!(run(args, temp.path(), 0).unwrap_err().code, Exit::CONFIG);
    }
}
