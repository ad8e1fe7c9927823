//! A password file, as libpq reads it (PostgreSQL's documentation, "The Password File").

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio_postgres::config::Host;

use super::{Endpoint, LOCAL_SOCKETS};

/// The login for which a password is looked up.
pub(super) struct Login<'a> {
    pub endpoints: &'a [Endpoint],
    pub user: Option<&'a str>,
    pub dbname: Option<&'a str>,
}

/// Returns the password for a login, if the file contains one.
///
/// # Errors
/// The reason why the file cannot be used, with its name.
pub(super) fn password(file: &Path, login: &Login<'_>) -> Result<Option<String>, String> {
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    let text = fs::read_to_string(file).map_err(|error| named(&error))?;
    let mode = fs::metadata(file).map_err(|error| named(&error))?;
    if mode.permissions().mode() & 0o077 != 0 {
        return Err(named(&"others may read it; chmod 600"));
    }
    let mut found = login.endpoints.iter().map(|endpoint| {
        let host = match &endpoint.host {
            Host::Unix(path) if path == Path::new(LOCAL_SOCKETS) => "localhost".to_owned(),
            Host::Unix(path) => path.display().to_string(),
            Host::Tcp(name) => name.clone(),
        };
        let port = endpoint.port.to_string();
        let user = login.user.unwrap_or_default();
        let dbname = login.dbname.unwrap_or(user);
        lookup(&text, [&host, &port, dbname, user])
    });
    let first = found.next().flatten();
    match found.all(|other| other == first) {
        true => Ok(first),
        false => Err(named(
            &"it has another password for each host; that is not supported",
        )),
    }
}

fn lookup(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let fields = fields(line);
            let (password, fields) = fields.split_last()?;
            let is_for = |(field, wanted): (&String, &&str)| field == "*" || field == wanted;
            let fits = fields.len() == wanted.len() && fields.iter().zip(&wanted).all(is_for);
            fits.then(|| password.clone())
        })
}

/// Splits a line into its fields. A backslash escapes a colon or a backslash.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.trim_end_matches('\r').chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        match (c, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            (_, Some(field)) => field.push(escaped.unwrap_or(c)),
            (_, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_matching_line_has_the_password() {
        let text =
            "# a comment\nother:*:*:*:no\ndb.example:5432:h:joe:a\\:b\\\\c\n*:*:*:*:last\r\n";
        let of = |host, port, user| lookup(text, [host, port, "h", user]);
        assert_eq!(of("db.example", "5432", "joe").as_deref(), Some("a:b\\c"));
        assert_eq!(of("db.example", "5433", "joe").as_deref(), Some("last"));
        assert_eq!(lookup("a:1:h:joe", ["a", "1", "h", "joe"]), None);
        assert_eq!(lookup("", ["a", "1", "h", "joe"]), None);
    }
}
