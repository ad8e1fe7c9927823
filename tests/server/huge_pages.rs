//! Memory is taken in small pages, so that a small heap stays small.
#![cfg(target_os = "linux")]

use std::fs;

use crate::support::Server;

/// The number behind a name in one of the files that the kernel keeps about the process.
fn number(server: &Server, file: &str, name: &str) -> u64 {
    let path = format!("/proc/{}/{file}", server.child.id());
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[test]
fn there_are_no_transparent_huge_pages() {
    let server = Server::start();
    assert_eq!(server.anonymous().drain(), []);
    assert_eq!(number(&server, "status", "THP_enabled:"), 0);
    // Where the kernel gives them to everybody, the allocator has some before `main` begins.
    let huge = number(&server, "smaps_rollup", "AnonHugePages:");
    assert!(huge <= 4096, "{huge} KB");
}
