//! Bytes on the heap, counted by the allocator, over simulated sockets and a simulated clock.
//!
//! There is one heap, which the test runner and the other tests use, too. Each test therefore runs in
//! a process of its own: see [`alone`].
#![allow(
    unreachable_pub,
    reason = "helpers are public to the modules of this binary"
)]

mod batch;
mod crowd;
mod ledger;
mod over_time;

use std::env;
use std::process::Command;

use h_realtime_test_kit as sim;
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Runs a test in a child process that runs no other test.
///
/// `module` is the `module_path!()` of the test, and `name` the name of its function.
///
/// # Panics
///
/// If the test fails in the child process, or does not exist there.
fn alone(module: &str, name: &str, test: impl FnOnce()) {
    if env::var_os(IS_ALONE).is_some() {
        return test();
    }
    let (_, module) = module.split_once("::").unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args([&format!("{module}::{name}"), "--exact", "--test-threads=1"])
        .env(IS_ALONE, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let is_one = stdout.contains("test result: ok. 1 passed");
    assert!(output.status.success() && is_one, "{stdout}");
}

/// The environment variable that tells a test that it runs in the child process.
const IS_ALONE: &str = "H_REALTIME_TEST_IS_ALONE";
