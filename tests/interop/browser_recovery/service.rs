//! A web site with an annotated page, the official client, and the part of h's REST API that the client
//! needs. The API reflects the state that the test sets: the client loads annotations only with the
//! page.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{SiteRequest, SiteResponse, serve_site};

/// The site, and the API of the annotation service.
pub struct Service {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The URL of the Real Time API.
    websocket: String,
    /// The token and the userid of each user.
    users: Vec<(String, String)>,
    /// The groups of each user.
    groups: Vec<(String, &'static str)>,
    /// The results of a search, which must be readable for the user that loads the page.
    annotations: Vec<Value>,
    /// The path of each request.
    requests: Vec<String>,
    /// The edits by clients.
    edits: Vec<Edit>,
}

/// An annotation that a client has saved.
pub struct Edit {
    pub client_id: String,
    pub annotation: Value,
}

impl Service {
    /// Starts a service whose Real Time API has this address.
    pub fn start(real_time_api: SocketAddr) -> Service {
        assert!(
            Path::new(PACKAGE).join("boot.js").is_file(),
            "this test needs hypothesis: tests/setup installs it"
        );
        let state = Arc::new(Mutex::new(State {
            websocket: format!("ws://{real_time_api}/ws"),
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        let address = serve_site(move |request| respond(request, &mut shared.lock().unwrap()));
        Service { address, state }
    }

    /// Returns the URL of the annotated page.
    pub fn page(&self) -> String {
        format!("http://{}/page", self.address)
    }

    /// Adds a user.
    pub fn add_user(&self, userid: &str, token: &str) {
        let mut state = self.state.lock().unwrap();
        state.users.push((token.to_owned(), userid.to_owned()));
    }

    /// Sets the groups of a user.
    pub fn set_groups(&self, userid: &str, groups: &[&'static str]) {
        let mut state = self.state.lock().unwrap();
        state.groups.retain(|(other, _)| other != userid);
        let groups = groups.iter().map(|group| (userid.to_owned(), *group));
        state.groups.extend(groups);
    }

    /// Sets the annotations that a page loads.
    pub fn set_annotations(&self, annotations: &[Value]) {
        self.state.lock().unwrap().annotations = annotations.to_vec();
    }

    /// Returns the number of requests for a path.
    pub fn requests(&self, path: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|other| *other == path).count()
    }

    /// Returns the edits since the last call.
    pub fn take_edits(&self) -> Vec<Edit> {
        std::mem::take(&mut self.state.lock().unwrap().edits)
    }
}

fn respond(request: &SiteRequest, state: &mut State) -> SiteResponse {
    let host = request.field("host").unwrap_or_default();
    let path = request.path();
    state.requests.push(path.to_owned());
    match path {
        "/empty" => html("<!doctype html><title>Empty</title>"),
        "/page" => html(&PAGE.replace("ORIGIN", &format!("http://{host}"))),
        "/app.html" => html(&APP.replace("ORIGIN", &format!("http://{host}"))),
        _ => match (
            path.strip_prefix("/api/"),
            path.strip_prefix("/client/build/"),
        ) {
            (Some(resource), _) => api(request, resource, host, state),
            (_, Some(file)) => asset(file),
            _ => response(404, "text/plain", ""),
        },
    }
}

fn api(request: &SiteRequest, resource: &str, host: &str, state: &mut State) -> SiteResponse {
    let authorization = request.field("authorization").unwrap_or_default();
    let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
    let user = state.users.iter().find(|(other, _)| other == token);
    let user = user.map(|(_, userid)| userid.clone());
    let groups = || {
        let groups = state.groups.iter();
        groups.filter(|(userid, _)| Some(userid) == user.as_ref())
    };
    let body = match (request.method.as_str(), resource) {
        (_, "") => json!({"links": routes(host)}),
        (_, "links") => links(host, &state.websocket),
        (_, "profile") => json!({
            "userid": user, "authority": "example.org", "features": {}, "preferences": {},
        }),
        (_, "profile/groups") => groups().map(|(_, id)| group(id, "private")).collect(),
        (_, "groups") => json!([group("__world__", "open")]),
        (_, "search") => {
            let wanted = request
                .target
                .split(['?', '&'])
                .find_map(|part| part.strip_prefix("group="));
            let is_wanted = |annotation: &&Value| annotation["group"].as_str() == wanted;
            let rows: Vec<_> = state.annotations.iter().filter(is_wanted).collect();
            json!({"total": rows.len(), "rows": rows})
        }
        ("PATCH", resource) => save(request, resource, state),
        _ => json!({}),
    };
    response(200, "application/json", body.to_string())
}

/// Changes an annotation.
fn save(request: &SiteRequest, resource: &str, state: &mut State) -> Value {
    let id = resource.strip_prefix("annotations/").unwrap();
    let mut annotations = state.annotations.iter_mut();
    let annotation = annotations
        .find(|annotation| annotation["id"] == id)
        .unwrap();
    let changes: Value = serde_json::from_str(&request.body).unwrap();
    annotation["text"] = changes["text"].clone();
    state.edits.push(Edit {
        client_id: request.field("x-client-id").unwrap().to_owned(),
        annotation: annotation.clone(),
    });
    annotation.clone()
}

fn routes(host: &str) -> Value {
    let route = |method: &str, path: &str| json!({"method": method, "url": format!("http://{host}/api/{path}"), "desc": ""});
    json!({
        "links": route("GET", "links"),
        "search": route("GET", "search"),
        "annotation": {
            "update": route("PATCH", "annotations/:id"),
        },
        "groups": {"read": route("GET", "groups")},
        "group": {"members": {"read": route("GET", "groups/:pubid/members")}},
        "profile": {
            "read": route("GET", "profile"),
            "groups": {"read": route("GET", "profile/groups")},
        },
        "analytics": {"events": {"create": route("POST", "analytics/events")}},
    })
}

fn links(host: &str, websocket: &str) -> Value {
    let page = |path: &str| format!("http://{host}/{path}");
    json!({
        "websocket": websocket,
        "account.settings": page("account"),
        "forgot-password": page("forgot-password"),
        "groups.new": page("groups/new"),
        "help": page("help"),
        "oauth.authorize": page("oauth/authorize"),
        "oauth.revoke": page("oauth/revoke"),
        "search.tag": page("search?q=tag:\":tag\""),
        "signup": page("signup"),
        "user": page("users/:user"),
    })
}

fn group(id: &str, kind: &str) -> Value {
    json!({
        "id": id, "groupid": null, "name": id, "type": kind, "public": kind == "open",
        "scoped": false, "scopes": null, "organization": null, "links": {},
    })
}

fn asset(file: &str) -> SiteResponse {
    assert!(!file.contains(".."), "{file}");
    let media_type = match file.rsplit('.').next() {
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        _ => "application/octet-stream",
    };
    match std::fs::read(Path::new(PACKAGE).join(file)) {
        Ok(body) => SiteResponse {
            status: 200,
            media_type,
            body,
        },
        Err(_) => response(404, "text/plain", ""),
    }
}

fn html(page: &str) -> SiteResponse {
    response(200, "text/html; charset=utf-8", page)
}

fn response(status: u16, media_type: &'static str, body: impl Into<Vec<u8>>) -> SiteResponse {
    SiteResponse {
        status,
        media_type,
        body: body.into(),
    }
}

/// The client's build, of the npm package.
const PACKAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/hypothesis/package/build"
);

/// The annotated page. Annotations quote its words.
const PAGE: &str = r#"<!doctype html><title>A page</title><link rel=icon href="data:,">
<style>body { font: 20px/2 sans-serif; margin: 3em; width: 30em }</style>
<p>alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa
<script class="js-hypothesis-config" type="application/json">
{"openSidebar": true, "sidebarAppUrl": "ORIGIN/app.html", "notebookAppUrl": "ORIGIN/app.html",
 "profileAppUrl": "ORIGIN/app.html", "assetRoot": "ORIGIN/client/"}
</script>
<script src="/client/build/boot.js"></script>
"#;

/// The page of the sidebar's frame.
const APP: &str = r#"<!doctype html><title>Hypothesis</title><base target="_top">
<link rel=icon href="data:,">
<hypothesis-app></hypothesis-app>
<script class="js-hypothesis-config" type="application/json">
{"apiUrl": "ORIGIN/api/", "assetRoot": "ORIGIN/client/", "authDomain": "example.org", "oauthClientId": "test"}
</script>
<script src="/client/build/boot.js"></script>
"#;
