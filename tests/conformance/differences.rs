//! The intended differences from h, and their reasons.
//!
//! Each group gives the expected output in the steps that differ: the step's number, and the events
//! in short. The tests fail if a listed transcript does not differ, or differs in another way, as
//! they do if an unlisted transcript differs.

use std::collections::BTreeMap;

/// The intended differences, by the names of the transcripts.
pub type Listed = BTreeMap<&'static str, Intended>;

/// An intended difference.
#[derive(Clone, Copy, Debug)]
pub struct Intended {
    /// The expected output.
    pub here: &'static str,
    pub reason: &'static str,
}

pub fn of_the_embedded_backend() -> Listed {
    listed(&[DIFFERENCES])
}

#[cfg(feature = "h")]
pub fn of_h() -> Listed {
    listed(&[DIFFERENCES, HEARTBEATS, OF_EVENTS])
}

/// For the transcripts that the program can play.
pub fn of_the_program() -> Listed {
    listed(&[DIFFERENCES, HEARTBEATS])
}

/// For a server that must not differ from h.
pub fn none() -> Listed {
    Listed::new()
}

fn listed(lists: &[&[Group]]) -> Listed {
    let mut listed = Listed::new();
    for group in lists.iter().copied().flatten() {
        assert!(!group.reason.is_empty());
        for name in group.transcripts {
            let (here, reason) = (group.here, group.reason);
            let before = listed.insert(*name, Intended { here, reason });
            assert!(before.is_none(), "{name} is listed twice");
        }
    }
    listed
}

struct Group {
    /// The reason for the difference.
    reason: &'static str,
    here: &'static str,
    transcripts: &'static [&'static str],
}

/// Every client in `deliver_*` receives every event of an annotation.
#[cfg(feature = "h")]
macro_rules! all_clients {
    ($id:literal) => {
        concat!(
            "2: alice anon bob carol dave luis mallory nogroups student1 student2 teacher: create ",
            $id,
            "; 3: alice anon bob carol dave luis mallory nogroups student1 student2 teacher: update ",
            $id,
            "; 4: alice anon bob carol dave luis mallory nogroups student1 student2 teacher: delete ",
            $id
        )
    };
}

const DIFFERENCES: &[Group] = &[
    // Filters.
    Group {
        reason: "`include_all` is supported",
        here: "1: nothing",
        transcripts: &["filter_reply_match_policy_other"],
    },
    // Handshakes.
    Group {
        reason: "RFC 9112 §3.2.2: a server must accept a target in absolute form",
        here: "0: 101; 1: 1 pong",
        transcripts: &["hs_absolute_uri"],
    },
    Group {
        reason: "RFC 6455 §4.2.1 requires HTTP/1.1, Host, a list element `websocket`, a key of \
                 16 bytes, and version 13; two parsers could frame a handshake with a body \
                 differently",
        here: "0: 400 bad_handshake, eof; 1: nothing",
        transcripts: &[
            "hs_get_body",
            "hs_http10_no_host",
            "hs_key_empty",
            "hs_upgrade_substring",
            "hs_version_8",
            "hs_version_plus13",
        ],
    },
    Group {
        reason: "an invalid key is the client's error, not the server's (h: 500)",
        here: "0: 400 bad_handshake, eof",
        transcripts: &["hs_key_bad_padding"],
    },
    Group {
        reason: "RFC 9112 §2.2, §5.1, and §5.2: invalid and folded header fields may be refused; \
                 intermediaries parse them differently. HTTP/1.2 was never defined",
        here: "0: 400 bad_request, eof; 1: nothing",
        transcripts: &["hs_header_no_colon", "hs_http12", "hs_obs_fold"],
    },
    Group {
        reason: "RFC 9112 §3.2: a server must refuse a request without a valid `Host`",
        here: "0: 400 bad_request, eof; 1: nothing",
        transcripts: &["hs_host_bad", "hs_no_host"],
    },
    Group {
        reason: "refused as by h, with a JSON body that gives the reason (h: none)",
        here: "0: 400 bad_request, eof",
        transcripts: &["hs_http20_line", "hs_http2_preface", "hs_leading_crlf"],
    },
    Group {
        reason: "the limit of a head is 16 KiB, for all of its parts together; h accepts targets \
                 of up to 8 KiB",
        here: "0: 101; 1: 1 pong",
        transcripts: &["hs_uri_9k"],
    },
    Group {
        reason: "a frame sent with the handshake is the first frame; h loses it",
        here: "0: 101, 1 pong",
        transcripts: &["hs_pipelined_frame"],
    },
    Group {
        reason: "an unused query parameter that is not valid text is ignored (h: 500)",
        here: "0: 101; 1: 1 pong",
        transcripts: &["hs_query_bad_utf8"],
    },
    // Credentials.
    Group {
        reason: "an empty token is anonymous, even if one is stored",
        here: "1: 1 is null",
        transcripts: &["whoami_query_noequals"],
    },
    Group {
        reason: "a malformed token is unknown, and served as anonymous (h: 500)",
        here: "0: 101; 1: 1 is null",
        transcripts: &["whoami_query_nul"],
    },
    Group {
        reason: "only `&` separates parameters (WHATWG URL); proxies treat a token after a `;` \
                 as part of another parameter's value",
        here: "1: 1 is null",
        transcripts: &["whoami_query_semicolon"],
    },
    // Messages.
    Group {
        reason: "RFC 6455 §7.4.1 specifies 1007 for an invalid message. After h's 1000 the \
                 official client does not reconnect",
        here: "1: close 1007 invalid message format",
        transcripts: &["binary_latin1"],
    },
    Group {
        reason: "the same, and §5.5.1: the connection sends nothing after the close frame (h \
                 continues to serve it)",
        here: "1: close 1007 invalid message format; 2: nothing",
        transcripts: &[
            "json_bad_blank",
            "json_bad_comment",
            "json_bad_control_char_in_string",
            "json_bad_empty",
            "json_bad_leading_zero",
            "json_bad_single_quotes",
            "json_bad_trailing_comma",
            "json_bad_truncated",
            "json_nan", // `NaN` is not JSON (RFC 8259 §6), although Python's parser accepts it.
        ],
    },
    Group {
        reason: "`NaN` is not JSON",
        here: "6: close 1007 invalid message format; 7: nothing",
        transcripts: &["type_scalar"],
    },
    Group {
        reason: "a boolean is not a number (in Python it is), and only a number is repeated in a \
                 reply",
        here: "2: nothing",
        transcripts: &["ids_error_reply"],
    },
    Group {
        reason: "a client id is a string or null; h accepts any JSON",
        here: r#"5: 4 "\"value\" must be a string or null"; 6: 5 "\"value\" must be a string or null""#,
        transcripts: &["client_id_reply"],
    },
    Group {
        reason: "an unusable filter is reported; h ignores it silently, or keeps it and fails at \
                 events",
        here: r#"1: 1 "failed to parse filter""#,
        transcripts: &[
            "filter_reply_clause_field_array",
            "filter_reply_clause_no_field",
            "filter_reply_clause_no_value",
            "filter_reply_clause_null",
            "filter_reply_clause_number",
            "filter_reply_clause_string",
            "filter_reply_uri_null",
            "filter_reply_uri_object",
            "filter_reply_uri_unparsable",
            "filter_reply_value_list_mixed",
            "filter_reply_value_list_of_objects",
        ],
    },
    // Close frames.
    Group {
        reason: "§7.4: a code that must not be sent violates the protocol. h answers with 1005, \
                 which must not be sent either",
        here: "1: close 1002 invalid close code, eof",
        transcripts: &[
            "close_0",
            "close_1004",
            "close_1006",
            "close_1015",
            "close_1016",
            "close_2999",
            "close_5000",
            "close_65535",
            "close_999",
        ],
    },
    Group {
        reason: "1013 is in the IANA registry, and echoed like any other code",
        here: "1: close 1013 because, eof",
        transcripts: &["close_1013"],
    },
    Group {
        reason: "so is 1014",
        here: "1: close 1014 because, eof",
        transcripts: &["close_1014"],
    },
    Group {
        reason: "the reply to a close frame without a code has none; h sends 1005, which §7.4.1 \
                 forbids",
        here: "1: close without a code, eof",
        transcripts: &["close_empty"],
    },
    // Frames: the same code with our own reason.
    Group {
        reason: WORDS,
        here: "1: close 1007 close reason is not UTF-8, eof",
        transcripts: &["close_bad_utf8_reason"],
    },
    Group {
        reason: WORDS,
        here: "1: close 1002 control frame is too long, eof",
        transcripts: &["close_reason_124"],
    },
    Group {
        reason: WORDS,
        here: "1: close 1002 control frame is fragmented, eof",
        transcripts: &["protocol_ping_fragmented"],
    },
    Group {
        reason: WORDS,
        here: "2: close 1002 message inside a message, eof",
        transcripts: &["fragments_new_text_inside"],
    },
    Group {
        reason: WORDS,
        here: "2: close 1002 nothing to continue, eof",
        transcripts: &["fragments_orphan_after_message"],
    },
    Group {
        reason: WORDS,
        here: "1: close 1002 nothing to continue, eof",
        transcripts: &["fragments_orphan_continuation"],
    },
    Group {
        reason: WORDS,
        here: "1: close 1007 text is not UTF-8, eof",
        transcripts: &[
            "fragments_split_utf8_bad",
            "invalid_utf8_surrogate",
            "invalid_utf8_text",
        ],
    },
    Group {
        reason: WORDS,
        here: "1: close 1002 unknown opcode, eof",
        transcripts: &[
            "reserved_opcode_3",
            "reserved_opcode_11",
            "reserved_opcode_15",
        ],
    },
    Group {
        reason: WORDS,
        here: "1: close 1002 reserved bits are set, eof",
        transcripts: &["rsv_1", "rsv_4"],
    },
    Group {
        reason: WORDS,
        here: "1: close 1002 frame is not masked, eof",
        transcripts: &["unmasked_close", "unmasked_ping", "unmasked_text"],
    },
    Group {
        reason: WORDS,
        here: "1: close 1002 top bit of the length is set, eof",
        transcripts: &["big_length_msb"],
    },
    // Frames that h accepts.
    Group {
        reason: "§5.1: every frame from a client is masked, empty or not",
        here: "1: close 1002 frame is not masked, eof",
        transcripts: &["unmasked_empty_ping", "unmasked_empty_text"],
    },
    Group {
        reason: "§5.2: \"the minimal number of bytes MUST be used to encode the length\"",
        here: "1: close 1002 length is not minimal, eof; 2: nothing",
        transcripts: &["length_not_minimal"],
    },
    Group {
        reason: "the limit of a message is 64 KiB, enforced as soon as a header announces more; \
                 h runs out of memory and drops the connection",
        here: "1: close 1009 message is too big, eof",
        transcripts: &["big_length_lie"],
    },
];

/// Transcripts that wait.
const HEARTBEATS: &[Group] = &[
    Group {
        reason: "a ping detects whether the peer is alive; an unsolicited pong does not",
        here: "1: ping",
        transcripts: &["heartbeat"],
    },
    Group {
        reason: "a client that does not answer pings is closed, and its slot is freed",
        here: "2: ping, eof; 3: nothing",
        transcripts: &["heartbeat_silent_client"],
    },
];

/// Transcripts with events, h's database, or its message queue.
#[cfg(feature = "h")]
const OF_EVENTS: &[Group] = &[
    Group {
        reason: "an annotation that becomes unreadable for a client is retracted",
        here: "6: s2: delete AAAAKREREeaAAAAAAAAAKQ",
        transcripts: &["checkpoint_revealed"],
    },
    Group {
        reason: "a filter whose actions are false is not sent them, as its message states",
        here: "2: nothing; 3: nothing; 4: nothing",
        transcripts: &["match_actions_ignored"],
    },
    // Content of deliveries.
    Group {
        reason: "an annotation without references, which h stores as NULL or as an empty list, \
                 is not a reply; h fails for NULL and loses the event",
        here: all_clients!("AAAAGxEREeaAAAAAAAAAGw"),
        transcripts: &["deliver_refs_null"],
    },
    Group {
        reason: "an invalid URI matches no filter on URIs; filters on other fields match all the \
                 same. h fails, and loses the event for all clients",
        here: all_clients!("AAAAJREREeaAAAAAAAAAJQ"),
        transcripts: &["deliver_uri_null"],
    },
    Group {
        reason: "the same",
        here: all_clients!("AAAAJhEREeaAAAAAAAAAJg"),
        transcripts: &["deliver_uri_bad"],
    },
    Group {
        reason: "links use APP_URL; in this one h uses `localhost` regardless of APP_URL",
        here: concat!(
            "2: alice anon bob carol dave luis mallory nogroups student1 student2 teacher: ",
            "create AAAAHBEREeaAAAAAAAAAHA with ",
            "/payload/0/mentions/0/link \"http://localhost:5000/users/bob\", ",
            "/payload/0/mentions/2/link \"http://localhost:5000/users/Luis.Silva\"; ",
            "3: alice anon bob carol dave luis mallory nogroups student1 student2 teacher: ",
            "update AAAAHBEREeaAAAAAAAAAHA with ",
            "/payload/0/mentions/0/link \"http://localhost:5000/users/bob\", ",
            "/payload/0/mentions/2/link \"http://localhost:5000/users/Luis.Silva\""
        ),
        transcripts: &["deliver_mention"],
    },
    Group {
        reason: "`:all` matches every version and none; h treats it as a version that no \
                 annotation has",
        here: "30: 06: create AAAAEREREeaAAAAAAAAAEQ; 31: 06: create AAAAEhEREeaAAAAAAAAAEg; \
               32: 06: create AAAAExEREeaAAAAAAAAAEw",
        transcripts: &["uri_versions"],
    },
    // Recipients of events.
    Group {
        reason: "an event without an originating client is sent to all; h omits all clients \
                 without a client id",
        here: "3: create AAAAAREREeaAAAAAAAAAAQ",
        transcripts: &["echo_client_null_sent"],
    },
    Group {
        reason: "a client id is a string (see `client_id_reply`), so these clients have none",
        here: "3: create AAAAAREREeaAAAAAAAAAAQ",
        transcripts: &[
            "echo_number_same",
            "echo_number_vs_float",
            "echo_object_same",
        ],
    },
    Group {
        reason: "an unusable filter is refused (see `filter_reply_value_list_of_objects`); h \
                 keeps it, and then one client prevents delivery to others",
        here: "3: 04 07 08 11 15: create AAAAAREREeaAAAAAAAAAAQ; \
               4: 04 07 08 11 15: create AAAAAREREeaAAAAAAAAAAQ",
        transcripts: &["match_poison_many"],
    },
    // Identity.
    Group {
        reason: "a user who was removed from a group receives no more of its events once the \
                 removal is known, and is sent retractions: the new handshake reads it. h never \
                 reads it again",
        here: "7: delete AAAAAxEREeaAAAAAAAAAAw with /options/action \"delete\", no \
               /payload/0/created, no /payload/0/updated, no /payload/0/user, no \
               /payload/0/uri, no /payload/0/text, no /payload/0/tags, no /payload/0/group, \
               no /payload/0/moderation_status, no /payload/0/permissions, no \
               /payload/0/target, no /payload/0/document, no /payload/0/links, no \
               /payload/0/actions, no /payload/0/mentions, no /payload/0/user_info, no \
               /payload/0/flagged, no /payload/0/hidden",
        transcripts: &["stale_membership_removed"],
    },
    // The end of a connection, and of others.
    Group {
        reason: "RFC 6455 §7.4.1 and §5.5.1, as in `json_bad_empty`",
        here: "2: close 1007 invalid message format; 3: nothing; 4: nothing",
        transcripts: &["send_after_invalid_json_close"],
    },
    Group {
        reason: "a client beyond the limit is refused and may try another server; h leaves it \
                 waiting",
        here: "1: 503 full, eof",
        transcripts: &["ops_pool_full"],
    },
    Group {
        reason: "clients are closed with 1012 when the server restarts, so that they reconnect; \
                 clients beyond the limit have already been refused",
        here: "1: 503 full, eof; 3: 04 05 06 07: close 1012 service restart, eof / \
               08 09 10 11: nothing",
        transcripts: &["ops_sigterm"],
    },
    Group {
        reason: "pings are answered at once, and events arrive as soon as the queue exists \
                 again; h loses the first",
        here: "4: 1 pong; 5: a u: create AAAAAREREeaAAAAAAAAAAQ",
        transcripts: &["ops_rabbit_restart"],
    },
];

const WORDS: &str = "the close code is the same; the reason is our own, and more specific";
