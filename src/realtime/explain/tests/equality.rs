//! Answers, compared with the notifications of real connections.

use super::*;

/// Returns a random filter, as JSON.
fn random_filter(pick: &mut impl FnMut(&[&'static str]) -> &'static str) -> Value {
    let mut clause = || {
        let field = pick(&[
            "/uri",
            "/group",
            "/id",
            "/user",
            "/tags",
            "/wildcard_uri",
            "/x",
        ]);
        let values: &[&str] = match field {
            "/uri" => &[
                "http://example.com/a",
                "https://example.com/a/#b",
                "http://b/",
            ],
            "/group" => &["g", "h"],
            "/user" => &["acct:A@x", "acct:b@x"],
            "/tags" => &["To Do", "todo", "TODO"],
            "/wildcard_uri" => &["https://example.com/*", "http://example.com/b*"],
            _ => &["A", "B"],
        };
        let operator = pick(&["one_of", "one_of", "equals", "not_one_of"]);
        json!({"field": field, "operator": operator, "value": [pick(values)]})
    };
    let clauses = vec![clause(), clause()];
    let clauses = match pick(&["one", "two"]) {
        "one" => &clauses[..1],
        _ => &clauses,
    };
    json!({
        "match_policy": pick(&["include_any", "include_all"]),
        "clauses": clauses,
        "actions": {"create": pick(&["yes", "yes", "no"]) == "yes"},
    })
}

/// For random annotations, users, and filters, the answer is that of a real connection.
#[test]
fn answer_equals_the_notification_of_a_real_connection() {
    let mut random = Random(11);
    let (mut sent, mut withheld) = (0, 0);
    for _ in 0..1500 {
        let mut pick = |from: &[&'static str]| from[random.below(from.len() as u64) as usize];
        let (group, own_group) = (pick(&["g", "h"]), pick(&["g", "h", "-"]));
        let role = match pick(&["m", "o"]) {
            "m" => Role::Member,
            _ => Role::Owner,
        };
        let userid = pick(&["acct:a@x", "acct:b@x"]);
        let filter = random_filter(&mut pick);
        let (source, client) = (pick(&["c", "d", "-"]), pick(&["c", "d", "-"]));
        let first = match pick(&["author", "member", "moderator", "everyone"]) {
            "author" => vec![Condition::User("acct:a@x".into())],
            "member" => vec![Condition::Member(group.into())],
            "moderator" => vec![Condition::Moderator(group.into())],
            _ => vec![],
        };
        let last = match pick(&["p", "m", "s"]) {
            "p" => Decision::Deny(DenyReason::Permission),
            "m" => Decision::Deny(DenyReason::Muted),
            _ => Decision::Send(1),
        };
        let plan = Plan {
            exclude_client: (source != "-").then(|| source.into()),
            ..plan(vec![rule(first, Decision::Send(0)), rule(vec![], last)])
        };
        let groups = match own_group {
            "-" => vec![],
            group => vec![(group, role)],
        };
        let mut api = api();
        api.open_as(3, identity(userid, 1, &groups));
        if client != "-" {
            api.text(
                3,
                &json!({"type": "client_id", "value": client}).to_string(),
            );
        }
        api.text(3, &json!({"type": "filter", "filter": filter}).to_string());
        let client = (client != "-").then_some(client);
        let who = (Some(userid), Some(user(userid, &groups)));
        let text = Some(filter.to_string().into());
        let answer = supposed(&mut api, text, client, who, Some(plan.clone()));
        let open = client.map(|client| judged(&mut api, client, plan.clone()));
        let (counts, outputs) = api.deliver(vec![plan]);
        let is_notified = counts == [1];
        assert_eq!(answer["would_notify"], is_notified, "{filter} {answer}");
        if let Some(open) = open {
            assert_eq!(open["reason"], answer["reason"], "{filter} {open}");
        }
        if let (true, [Output::Deliver(to)]) = (is_notified, &outputs[..]) {
            let message: Value = serde_json::from_str(&to[0].1).unwrap();
            assert_eq!(answer["variant"]["message"], message);
        }
        *(if is_notified {
            &mut sent
        } else {
            &mut withheld
        }) += 1;
    }
    assert!(sent > 100 && withheld > 100, "{sent} {withheld}");
}

#[test]
fn pattern_that_takes_too_many_steps_counts_as_in_a_delivery() {
    let pattern = format!("https://example.com/*{}b", "a".repeat(150));
    let filter = json!({
        "match_policy": "include_any",
        "clauses": [{"field": "/wildcard_uri", "operator": "one_of", "value": vec![pattern; 100]}],
        "actions": {"create": true},
    });
    let mut plan = plan(vec![rule(vec![], Decision::Send(0))]);
    let page = format!("httpx://example.com/{}__vall", "a".repeat(20_000));
    plan.candidates = Candidates::Terms(vec![term(Field::Uri, &page)]);
    let mut api = api();
    api.open_as(3, identity("acct:a@x", 1, &[]));
    api.text(3, &json!({"type": "filter", "filter": filter}).to_string());
    let who = (Some("acct:a@x"), Some(user("acct:a@x", &[])));
    let text = Some(filter.to_string().into());
    let answer = supposed(&mut api, text, None, who, Some(plan.clone()));
    assert_eq!(api.deliver(vec![plan]).0, [1]);
    assert_eq!(answer["would_notify"], true, "{answer}");
    let note = answer["filter"]["clauses"][0]["note"].as_str();
    assert!(note.is_some_and(|note| note.contains("too many steps")));
}

/// Returns the verdict on the only open connection with a client id.
fn judged(api: &mut TestApi, client: &str, plan: Plan) -> Value {
    let request = ExplainRequest {
        connection: ExplainedConnection::Open {
            client: client.into(),
        },
        lookup: Some(Lookup {
            user: None,
            event: Some(ExplainedEvent::Published("{}".into())),
        }),
    };
    let findings = Findings {
        user: None,
        plan: Some(plan),
    };
    explained(api, &request, findings)["connections"][0]["verdict"].clone()
}
