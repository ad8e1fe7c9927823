//! The web addresses of an annotation.

use std::fmt::Write as _;

use crate::backend::userid;

/// The base URLs of an installation of h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UrlBuilder {
    /// The authority of the installation's own users.
    authority: String,
    /// The base URL of its pages, without a trailing slash.
    app_url: String,
    /// The prefix of links to annotations in context, to which the annotation's id is appended.
    bouncer: Option<String>,
}

/// The inputs for the links of an annotation.
pub(super) struct UrlInputs<'a> {
    pub id: &'a str,
    /// The id of the root annotation of the thread.
    pub root: &'a str,
    /// The author's userid.
    pub userid: &'a str,
    pub uri: &'a str,
    /// The web address of the document if `uri` is only its fingerprint.
    pub web_address: Option<&'a str>,
}

impl UrlBuilder {
    pub(super) fn new(authority: &str, app_url: &str, bouncer_url: Option<&str>) -> UrlBuilder {
        UrlBuilder {
            authority: authority.to_owned(),
            app_url: app_url.trim_end_matches('/').to_owned(),
            bouncer: bouncer_url.map(base_of),
        }
    }

    /// Returns the annotation's own page. h has no such pages for users of other authorities.
    pub(super) fn html(&self, of: &UrlInputs<'_>) -> Option<String> {
        self.is_own(userid::split(of.userid)?.1)
            .then(|| format!("{}/a/{}", self.app_url, of.id))
    }

    /// Returns the link to the annotated page that displays the annotation.
    pub(super) fn incontext(&self, of: &UrlInputs<'_>) -> Option<String> {
        let mut link = [self.bouncer.as_ref()?, of.root].concat();
        let uri = if of.uri.starts_with("urn:x-pdf:") {
            of.web_address.unwrap_or_default()
        } else {
            of.uri
        };
        let schemes = ["http://", "https://"];
        if let Some(rest) = schemes.iter().find_map(|scheme| uri.strip_prefix(scheme)) {
            link.push('/');
            link.push_str(rest);
        }
        Some(link)
    }

    /// Returns the annotation's URL in the API.
    pub(super) fn json(&self, of: &UrlInputs<'_>) -> String {
        format!("{}/api/annotations/{}", self.app_url, of.id)
    }

    /// Returns the page of a user. h has no such pages for users of other authorities.
    pub(super) fn user(&self, username: &str, authority: &str) -> Option<String> {
        if !self.is_own(authority) {
            return None;
        }
        let mut link = [&self.app_url, "/users/"].concat();
        for byte in username.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
                link.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(link, "%{byte:02X}");
            }
        }
        Some(link)
    }

    fn is_own(&self, authority: &str) -> bool {
        authority == self.authority
    }
}

/// Returns the base for relative references (RFC 3986, section 5.2.3): the URL up to the last slash
/// of its path, without query and fragment.
fn base_of(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let path = url.find("://").map_or(0, |scheme| {
        let authority = scheme + "://".len();
        let rest = url.get(authority..).unwrap_or_default();
        authority + rest.find('/').unwrap_or(rest.len())
    });
    let (origin, path) = url.split_at(path);
    match path.rfind('/') {
        Some(slash) => [origin, path.get(..=slash).unwrap_or_default()].concat(),
        None if origin.is_empty() => String::new(),
        None => [origin, "/"].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls() -> UrlBuilder {
        UrlBuilder::new(
            "localhost",
            "http://localhost:5000",
            Some("http://localhost:8000"),
        )
    }

    fn linked<'a>(userid: &'a str, uri: &'a str) -> UrlInputs<'a> {
        UrlInputs {
            id: "ID",
            root: "ROOT",
            userid,
            uri,
            web_address: None,
        }
    }

    #[test]
    fn only_users_of_the_own_authority_have_pages() {
        let urls = urls();
        let own = linked("acct:alice@localhost", "");
        assert_eq!(
            urls.html(&own).as_deref(),
            Some("http://localhost:5000/a/ID")
        );
        assert_eq!(urls.json(&own), "http://localhost:5000/api/annotations/ID");
        for other in ["acct:mallory@example.com", "acct:a@localhost@b", "alice"] {
            assert_eq!(urls.html(&linked(other, "")), None, "{other}");
        }
        assert_eq!(
            urls.user("Luis.Silva", "localhost").as_deref(),
            Some("http://localhost:5000/users/Luis.Silva")
        );
        assert_eq!(
            urls.user("a b?ü", "localhost").as_deref(),
            Some("http://localhost:5000/users/a%20b%3F%C3%BC")
        );
        assert_eq!(urls.user("mallory", "example.com"), None);
    }

    #[test]
    fn context_link_omits_the_scheme() {
        for (uri, link) in [
            ("http://example.com/page", "ROOT/example.com/page"),
            ("https://example.com/?a#b", "ROOT/example.com/?a#b"),
            ("HTTPS://example.com/", "ROOT"),
            ("file:///a.pdf", "ROOT"),
            ("", "ROOT"),
            ("urn:x-pdf:abc", "ROOT"),
        ] {
            let made = urls().incontext(&linked("", uri));
            let made = made
                .as_deref()
                .and_then(|it| it.strip_prefix("http://localhost:8000/"));
            assert_eq!(made, Some(link), "{uri}");
        }
        let mut pdf = linked("", "urn:x-pdf:abc");
        pdf.web_address = Some("http://example.com/paper.html");
        assert_eq!(
            urls().incontext(&pdf).as_deref(),
            Some("http://localhost:8000/ROOT/example.com/paper.html")
        );
        let without = UrlBuilder::new("localhost", "http://localhost:5000", None);
        assert_eq!(without.incontext(&pdf), None);
    }

    // Python's `urljoin`, which h uses, returns the same results.
    #[test]
    fn bouncer_url_may_have_a_path() {
        for (bouncer, link) in [
            ("https://hyp.is", "https://hyp.is/ROOT"),
            ("https://hyp.is/", "https://hyp.is/ROOT"),
            ("https://hyp.is/b", "https://hyp.is/ROOT"),
            ("https://hyp.is/b/", "https://hyp.is/b/ROOT"),
            ("https://hyp.is/b/c?d/e#f/g", "https://hyp.is/b/ROOT"),
            ("https://hyp.is?d", "https://hyp.is/ROOT"),
            ("hyp.is", "ROOT"),
        ] {
            let urls = UrlBuilder::new("", "", Some(bouncer));
            assert_eq!(urls.incontext(&linked("", "")).as_deref(), Some(link));
        }
    }
}
