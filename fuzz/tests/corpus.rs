//! Runs every target over its committed corpus: the fuzzers' seeds and their findings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use h_realtime_fuzz::TARGETS;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the names of the files in a directory, without extensions.
fn names(path: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(here(path)).unwrap();
    let name = |entry: fs::DirEntry| {
        let path = entry.path();
        path.file_stem().unwrap().to_str().unwrap().to_owned()
    };
    entries.map(|entry| name(entry.unwrap())).collect()
}

fn run_corpus(target: &str) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let mut count = 0;
    for entry in fs::read_dir(here("corpus").join(target)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        check(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "no corpus for {target}");
}

#[test]
fn every_target_has_a_file_and_a_corpus() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
}

macro_rules! corpora {
    ($($target:ident),* $(,)?) => {$(
        #[test]
        fn $target() {
            run_corpus(stringify!($target));
        }
    )*};
}

corpora!(
    chunked_body,
    client_log,
    client_message,
    close_payload,
    cursor,
    engine_ops,
    event_body,
    extensions,
    filter,
    frame_decoder,
    frame_differential,
    history_file,
    inflate,
    mask,
    proxy_header,
    request_head,
    uri_normalize,
    utf8,
);
