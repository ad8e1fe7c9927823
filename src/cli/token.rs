//! `h-realtime token`: access tokens.

use std::io::{BufRead as _, Read as _};
use std::path::Path;

use clap::{Args, Subcommand};

use super::console::{Console, with_store};
use super::json;
use crate::backend::embedded::{Store, TokenRow};
use crate::backend::new_secret;
use crate::backend::time;
use crate::exit::Exit;
use crate::model::{Secret, TokenId, UnixMillis};

/// Create, list, revoke, and prune access tokens.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Create a token for a user and print it once
    ///
    /// Prints the token to standard output, and messages to standard error. The database contains
    /// only a hash of the token, so it cannot be printed again.
    #[command(after_help = "\
Example:
  h-realtime token create acct:joe.bloggs@example.org --expires 30d > token.txt")]
    Create {
        /// The userid, as given to `h-realtime user add`
        userid: String,
        /// Lifetime: a number and one of s, m, h, d, w, such as 30d [default: unlimited]
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<UnixMillis>,
    },
    /// List tokens by id and user, without the tokens themselves
    List {
        /// List only the tokens of this user
        userid: Option<String>,
        /// Print a JSON array with an object for each
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token
    ///
    /// A running server closes open connections with this token within a second.
    #[command(after_help = "\
Examples:
  h-realtime token revoke 7                by id, from `h-realtime token list`
  h-realtime token revoke - < token.txt    by the token itself, hidden from `ps`")]
    Revoke {
        /// The token's id, or - to read the token itself from standard input
        id: String,
    },
    /// List the tokens that expired long ago, and delete them with --yes
    ///
    /// Expired tokens are rejected, but stay in the database until this command deletes them, so
    /// that a wrong clock alone deletes nothing. Check the time that it prints before adding --yes.
    /// Revoked tokens are deleted when they are revoked.
    Prune {
        /// Minimum time since expiry: a number and one of s, m, h, d, w; 0s selects all expired
        /// tokens
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30d")]
        expired_for: UnixMillis,
        /// Delete them
        #[arg(long)]
        yes: bool,
    },
}

/// Runs `h-realtime token` on a data directory.
///
/// # Errors
/// [`Exit::NO_USER`] for a user or token that does not exist, [`Exit::DATA`] for an invalid id, and
/// errors from opening the database.
pub(super) fn run(args: TokenArgs, data: &Path, now: UnixMillis) -> Result<(), Exit> {
    with_store(data, |store, console| {
        run_on(args.command, store, console, now)
    })
}

fn run_on(
    command: TokenCommand,
    store: &Store,
    console: &mut Console<'_>,
    now: UnixMillis,
) -> Result<(), Exit> {
    match command {
        TokenCommand::Create { userid, expires } => {
            let token = new_secret(PREFIX).map_err(|error| Exit::new(Exit::OS, error))?;
            let token = Secret(token);
            let expires = expires.map(|duration| now.saturating_add(duration));
            let id = store.add_token(&userid, &token, now, expires)?;
            writeln!(
                console.messages,
                "Token {} of {userid} (expires: {}), printed only once:",
                id.0,
                date(expires)
            )?;
            writeln!(console.out, "{}", token.0)?;
        }
        TokenCommand::List { userid, json } => {
            let rows = store.tokens(userid.as_deref())?;
            if json {
                let array: Vec<_> = rows.iter().map(|row| json::token(row, now)).collect();
                return json::print(&array.into(), console);
            }
            let none = "There are no tokens. Create one with: h-realtime token create USERID";
            console.table(&table(&rows, now), none)?;
        }
        TokenCommand::Revoke { id } => {
            let id = token_id(&id, store, console)?;
            store.revoke_token(id)?;
            writeln!(console.out, "revoked token {}", id.0)?;
        }
        TokenCommand::Prune { expired_for, yes } => {
            prune(store, console, now, now.saturating_sub(expired_for), yes)?;
        }
    }
    Ok(())
}

fn prune(
    store: &Store,
    console: &mut Console<'_>,
    now: UnixMillis,
    before: UnixMillis,
    yes: bool,
) -> Result<(), Exit> {
    let clock = time::format_human(now);
    write!(console.messages, "The time on this host is {clock}. ")?;
    let before_shown = time::format_human(before);
    if yes {
        writeln!(
            console.messages,
            "Deleting tokens that expired before {before_shown}."
        )?;
        let deleted = store.delete_tokens_expired_before(before)?;
        writeln!(console.out, "deleted tokens: {deleted}")?;
        return Ok(());
    }
    writeln!(
        console.messages,
        "Tokens that expired before {before_shown}:"
    )?;
    let mut rows = store.tokens(None)?;
    rows.retain(|token| token.expires.is_some_and(|expires| expires < before));
    console.table(&table(&rows, now), "No such tokens.")?;
    if !rows.is_empty() {
        writeln!(console.messages, "Run with --yes to delete them.")?;
    }
    Ok(())
}

fn token_id(id: &str, store: &Store, console: &mut Console<'_>) -> Result<TokenId, Exit> {
    if id == "-" {
        let mut line = String::new();
        console.input.take(LONGEST_TOKEN).read_line(&mut line)?;
        return Ok(store.token_of_secret(&Secret(line.trim().to_owned()))?);
    }
    // The input may be a token, so the message does not repeat it.
    id.parse().map(TokenId).map_err(|_| {
        Exit::new(
            Exit::DATA,
            "not the id of a token; list ids with `h-realtime token list`, or pass the token itself \
             on standard input to `h-realtime token revoke -`",
        )
    })
}

fn table(tokens: &[TokenRow], now: UnixMillis) -> Vec<Vec<String>> {
    let heading = ["ID", "USERID", "CREATED", "EXPIRES"].map(str::to_owned);
    let rows = tokens.iter().map(|token| {
        vec![
            token.id.0.to_string(),
            token.userid.clone(),
            time::format_human(token.created),
            end(token, now),
        ]
    });
    std::iter::once(heading.to_vec()).chain(rows).collect()
}

/// Describes when a token expires, and whether that time has passed.
pub(super) fn end(token: &TokenRow, now: UnixMillis) -> String {
    let note = if token.has_expired(now) {
        " (expired)"
    } else {
        ""
    };
    format!("{}{note}", date(token.expires))
}

fn date(expires: Option<UnixMillis>) -> String {
    expires.map_or_else(|| "never".to_owned(), time::format_human)
}

/// Parses the lifetime of a token, in milliseconds.
fn lifetime(text: &str) -> Result<UnixMillis, &'static str> {
    match duration(text)? {
        0 => Err("the lifetime must be longer than 0"),
        lifetime => Ok(lifetime),
    }
}

/// Parses a duration such as `30d`, in milliseconds.
fn duration(text: &str) -> Result<UnixMillis, &'static str> {
    const WRONG: &str = "expected a number and one of s, m, h, d, w, such as 30d";
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or(WRONG)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return Err(WRONG),
    };
    let number: u32 = digits.parse().map_err(|_| WRONG)?;
    Ok(u64::from(number) * seconds * 1000)
}

/// The prefix of this program's tokens, so that people and secret scanners recognize them.
const PREFIX: &str = "hrt-";
/// The maximum number of bytes to read for a token from standard input.
const LONGEST_TOKEN: u64 = 8192;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::console::captured;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: TokenArgs,
    }

    const JOE: &str = "acct:joe@example.org";

    fn store() -> (tempfile::TempDir, Store) {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("db")).unwrap();
        store.add_user(JOE, None, 0).unwrap();
        (temp, store)
    }

    fn run_line(store: &Store, line: &[&str], input: &str) -> (Result<(), u8>, String, String) {
        let cli = Cli::try_parse_from([&["token"], line].concat()).unwrap();
        let command = cli.args.command;
        let (result, out, messages) =
            captured(input, |console| run_on(command, store, console, 1000));
        (result.map_err(|exit| exit.code), out, messages)
    }

    #[test]
    fn token_is_printed_once_and_alone() {
        let (_temp, store) = store();
        let (result, out, messages) = run_line(&store, &["create", JOE, "--expires", "30d"], "");
        assert_eq!(result, Ok(()));
        let token = out.strip_suffix('\n').unwrap();
        assert!(token.starts_with("hrt-") && token.len() == 47, "{token}");
        assert!(!messages.contains(token));
        assert!(messages.contains("1970-01-31 00:00:01 UTC"), "{messages}");

        let (_, out, _) = run_line(&store, &["list"], "");
        let expected = "\
ID  USERID                CREATED                  EXPIRES
1   acct:joe@example.org  1970-01-01 00:00:01 UTC  1970-01-31 00:00:01 UTC\n";
        assert_eq!(out, expected);

        let (_, out, _) = run_line(&store, &["list", "--json"], "");
        let expected = concat!(
            r#"[{"id":1,"userid":"acct:joe@example.org","created":"1970-01-01T00:00:01.000Z","#,
            r#""expires":"1970-01-31T00:00:01.000Z","expired":false}]"#,
            "\n"
        );
        assert_eq!(out, expected);

        let (result, out, _) = run_line(&store, &["revoke", "-"], &format!("{token}\r\n"));
        assert_eq!((result, &*out), (Ok(()), "revoked token 1\n"));
        assert_eq!(
            run_line(&store, &["revoke", "-"], token).0,
            Err(Exit::NO_USER)
        );
    }

    #[test]
    fn unknown_users_and_ids_are_rejected() {
        let (_temp, store) = store();
        assert_eq!(run_line(&store, &["create", JOE], "").0, Ok(()));
        let cases: &[(&[&str], Result<(), u8>)] = &[
            (&["create", "acct:none@example.org"], Err(Exit::NO_USER)),
            (&["list", "acct:none@example.org"], Err(Exit::NO_USER)),
            (&["list", JOE], Ok(())),
            (&["revoke", "hrt-abc"], Err(Exit::DATA)),
            (&["revoke", "99"], Err(Exit::NO_USER)),
            (&["revoke", "1"], Ok(())),
            (&["revoke", "1"], Err(Exit::NO_USER)),
        ];
        for (line, expected) in cases {
            assert_eq!(run_line(&store, line, "").0, *expected, "{line:?}");
        }
    }

    #[test]
    fn expired_tokens_are_deleted_only_on_request() {
        let (_temp, store) = store();
        let secret = |text: &str| Secret(text.to_owned());
        for (text, expires) in [("a", Some(1_000)), ("b", Some(9_000)), ("c", None)] {
            store.add_token(JOE, &secret(text), 0, expires).unwrap();
        }
        let prune = |expired_for: &str, more: &[&str]| {
            let line = [&["prune", "--expired-for", expired_for], more].concat();
            let command = Cli::try_parse_from([&["token"], &line[..]].concat()).unwrap();
            let command = command.args.command;
            let (result, out, _) = captured("", |console| run_on(command, &store, console, 10_000));
            assert!(result.is_ok());
            out
        };
        let listed = prune("5s", &[]);
        assert!(
            listed.contains("\n1 ") && !listed.contains("\n2 "),
            "{listed}"
        );
        assert_eq!(store.tokens(None).unwrap().len(), 3);
        assert_eq!(prune("5s", &["--yes"]), "deleted tokens: 1\n");
        assert_eq!(store.tokens(None).unwrap().len(), 2);
        // 0s selects all expired tokens.
        assert_eq!(prune("0s", &["--yes"]), "deleted tokens: 1\n");
        assert_eq!(store.tokens(None).unwrap().len(), 1);
    }

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("1s", 1),
            ("90m", 5_400),
            ("12h", 43_200),
            ("30d", 2_592_000),
            ("2w", 1_209_600),
        ] {
            assert_eq!(duration(text), Ok(seconds * 1000), "{text}");
        }
        for text in [
            "",
            "d",
            "30",
            "-1d",
            "1.5h",
            "1y",
            "30é",
            "99999999999d",
            "1 d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("0d"), Ok(0));
        assert!(lifetime("0d").is_err());
    }
}
