//! Where people find an annotation on the web.

use std::fmt::Write as _;

use super::userid;

/// The addresses of an installation of h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// The authority of its own users.
    authority: String,
    /// Where its pages are, without a slash at the end.
    app_url: String,
    /// What the id of an annotation is put behind, for a link to it in its context.
    bouncer: Option<String>,
}

/// What the links of an annotation depend on.
pub(super) struct Linked<'a> {
    pub id: &'a str,
    /// The id of the annotation that its thread began with.
    pub root: &'a str,
    /// The author's.
    pub userid: &'a str,
    pub uri: &'a str,
    /// The web address of a document that `uri` is only the fingerprint of.
    pub web_address: Option<&'a str>,
}

impl Site {
    pub fn new(authority: &str, app_url: &str, bouncer_url: Option<&str>) -> Site {
        Site {
            authority: authority.to_owned(),
            app_url: app_url.trim_end_matches('/').to_owned(),
            bouncer: bouncer_url.map(folder),
        }
    }

    /// The page of the annotation. h has none for those of other authorities' users.
    pub fn html(&self, of: &Linked<'_>) -> Option<String> {
        self.is_own(userid::split(of.userid)?.1)
            .then(|| format!("{}/a/{}", self.app_url, of.id))
    }

    /// The annotated page itself, with the annotation shown.
    pub fn incontext(&self, of: &Linked<'_>) -> Option<String> {
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

    /// The annotation in the API.
    pub fn json(&self, of: &Linked<'_>) -> String {
        format!("{}/api/annotations/{}", self.app_url, of.id)
    }

    /// The page of a user. h has none for other authorities' users.
    pub fn user(&self, username: &str, authority: &str) -> Option<String> {
        if !self.is_own(authority) {
            return None;
        }
        let mut link = [&self.app_url, "/users/"].concat();
        for byte in username.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
                link.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(link, "%{byte:02X}");
            }
        }
        Some(link)
    }

    fn is_own(&self, authority: &str) -> bool {
        authority == self.authority
    }
}

/// What a relative reference is put behind (RFC 3986, section 5.2.3): the URL up to the last
/// slash of its path, without query and fragment.
fn folder(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let path = url.find("://").map_or(0, |scheme| {
        let authority = scheme + "://".len();
        let rest = url.get(authority..).unwrap_or_default();
        authority + rest.find('/').unwrap_or(rest.len())
    });
    let (site, path) = url.split_at(path);
    match path.rfind('/') {
        Some(slash) => [site, path.get(..=slash).unwrap_or_default()].concat(),
        None if site.is_empty() => String::new(),
        None => [site, "/"].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site::new(
            "localhost",
            "http://localhost:5000",
            Some("http://localhost:8000"),
        )
    }

    fn linked<'a>(userid: &'a str, uri: &'a str) -> Linked<'a> {
        Linked {
            id: "ID",
            root: "ROOT",
            userid,
            uri,
            web_address: None,
        }
    }

    #[test]
    fn only_own_users_have_pages() {
        let site = site();
        let own = linked("acct:alice@localhost", "");
        assert_eq!(
            site.html(&own).as_deref(),
            Some("http://localhost:5000/a/ID")
        );
        assert_eq!(site.json(&own), "http://localhost:5000/api/annotations/ID");
        for other in ["acct:mallory@example.com", "acct:a@localhost@b", "alice"] {
            assert_eq!(site.html(&linked(other, "")), None, "{other}");
        }
        assert_eq!(
            site.user("Luis.Silva", "localhost").as_deref(),
            Some("http://localhost:5000/users/Luis.Silva")
        );
        assert_eq!(
            site.user("a b?ü", "localhost").as_deref(),
            Some("http://localhost:5000/users/a%20b%3F%C3%BC")
        );
        assert_eq!(site.user("mallory", "example.com"), None);
    }

    #[test]
    fn the_context_is_the_page_without_its_scheme() {
        for (uri, link) in [
            ("http://example.com/page", "ROOT/example.com/page"),
            ("https://example.com/?a#b", "ROOT/example.com/?a#b"),
            ("HTTPS://example.com/", "ROOT"),
            ("file:///a.pdf", "ROOT"),
            ("", "ROOT"),
            ("urn:x-pdf:abc", "ROOT"),
        ] {
            let made = site().incontext(&linked("", uri));
            let made = made
                .as_deref()
                .and_then(|it| it.strip_prefix("http://localhost:8000/"));
            assert_eq!(made, Some(link), "{uri}");
        }
        let mut pdf = linked("", "urn:x-pdf:abc");
        pdf.web_address = Some("http://example.com/paper.html");
        assert_eq!(
            site().incontext(&pdf).as_deref(),
            Some("http://localhost:8000/ROOT/example.com/paper.html")
        );
        let without = Site::new("localhost", "http://localhost:5000", None);
        assert_eq!(without.incontext(&pdf), None);
    }

    // Python's urljoin, which h uses, gives the same.
    #[test]
    fn the_bouncer_may_be_below_a_path() {
        for (bouncer, link) in [
            ("https://hyp.is", "https://hyp.is/ROOT"),
            ("https://hyp.is/", "https://hyp.is/ROOT"),
            ("https://hyp.is/b", "https://hyp.is/ROOT"),
            ("https://hyp.is/b/", "https://hyp.is/b/ROOT"),
            ("https://hyp.is/b/c?d/e#f/g", "https://hyp.is/b/ROOT"),
            ("https://hyp.is?d", "https://hyp.is/ROOT"),
            ("hyp.is", "ROOT"),
        ] {
            let site = Site::new("", "", Some(bouncer));
            assert_eq!(site.incontext(&linked("", "")).as_deref(), Some(link));
        }
    }
}
