//! The release script refuses a version, a changelog, a tag, or a tree that do not agree.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

#[test]
#[ignore = "needs python3 and git: run tests/run"]
fn release_needs_equal_versions_in_manifests_changelog_and_tag() {
    let repository = Repository::new();
    repository.commit();
    repository.git(&["tag", "v1.2.3"]);
    assert_eq!(repository.check(&[]), Ok("version 1.2.3\n".to_owned()));

    for (file, was, is, problem) in [
        ("Cargo.toml", "1.2.3", "1.2.4", "has version 1.2.3"),
        (
            "src/engine/Cargo.toml",
            "1.2.3",
            "1.2.4",
            "src/engine/Cargo.toml has version 1.2.4",
        ),
        (
            "Cargo.toml",
            "{ version = \"1.2.3\"",
            "{ version = \"1.2.4\"",
            "the dependency on the engine",
        ),
        (
            "Cargo.lock",
            "h-realtime\"\nversion = \"1.2.3\"",
            "h-realtime\"\nversion = \"1.2.4\"",
            "h-realtime in Cargo.lock",
        ),
        (
            "CHANGELOG.md",
            "## 1.2.3 - 2026-11-30",
            "## 1.2.2 - 2026-11-30",
            "must be: ## 1.2.3 - YYYY-MM-DD",
        ),
        (
            "CHANGELOG.md",
            "## 1.2.3 - 2026-11-30",
            "## 1.2.3",
            "must be: ## 1.2.3 - YYYY-MM-DD",
        ),
        (
            "CHANGELOG.md",
            "## 1.2.3 - 2026-11-30",
            "## 1.2.3 - 2026-11-29",
            "has the date 2026-11-29",
        ),
        (
            "CHANGELOG.md",
            "## Unreleased\n",
            "## Unreleased\n\n- An entry.\n",
            "Unreleased is not empty",
        ),
        (
            "CHANGELOG.md",
            "## Unreleased\n",
            "",
            "the first heading must be: ## Unreleased",
        ),
    ] {
        let repository = Repository::new();
        repository.replace(file, was, is);
        repository.commit();
        repository.git(&["tag", "v1.2.3"]);
        let refused = repository.check(&[]).unwrap_err();
        assert!(refused.contains(problem), "{file}: {is}: {refused}");
        assert!(refused.ends_with("not released\n"), "{refused}");
    }
}

#[test]
#[ignore = "needs python3 and git: run tests/run"]
fn release_needs_a_tag_of_its_version_at_the_commit() {
    let repository = Repository::new();
    repository.commit();
    let refused = repository.check(&[]).unwrap_err();
    assert!(refused.contains("the commit has no tag"), "{refused}");
    repository.git(&["tag", "v1.2.2"]);
    let refused = repository.check(&[]).unwrap_err();
    assert!(refused.contains("the commit has v1.2.2"), "{refused}");
    // The tag of an earlier commit is not enough.
    let repository = Repository::new();
    repository.commit();
    repository.git(&["tag", "v1.2.3"]);
    repository.commit();
    let refused = repository.check(&[]).unwrap_err();
    assert!(refused.contains("the commit has no tag"), "{refused}");
}

#[test]
#[ignore = "needs python3 and git: run tests/run"]
fn release_needs_a_clean_tree() {
    let repository = Repository::new();
    repository.commit();
    repository.git(&["tag", "v1.2.3"]);
    let new = repository.folder.path().join("new");
    fs::write(&new, "").unwrap();
    for options in [&[][..], &["--snapshot"]] {
        let refused = repository.check(options).unwrap_err();
        assert!(refused.contains("?? new"), "{refused}");
    }
    fs::remove_file(new).unwrap();
    repository.replace("CHANGELOG.md", "- The first", "- Our first");
    let refused = repository.check(&[]).unwrap_err();
    assert!(refused.contains("M CHANGELOG.md"), "{refused}");
}

#[test]
#[ignore = "needs python3 and git: run tests/run"]
fn snapshot_has_the_commit_in_its_version_and_no_tag() {
    let repository = Repository::new();
    repository.replace(
        "CHANGELOG.md",
        "## Unreleased\n",
        "## Unreleased\n\n- An entry.\n",
    );
    repository.commit();
    let accepted = repository.check(&["--snapshot"]).unwrap();
    let commit = repository.git(&["rev-parse", "--short=12", "HEAD"]);
    assert_eq!(accepted, format!("version 1.2.3-snapshot.{commit}"));
    repository.git(&["tag", "v1.2.3"]);
    let refused = repository.check(&["--snapshot"]).unwrap_err();
    assert!(refused.contains("build it without --snapshot"), "{refused}");
}

#[test]
#[ignore = "needs python3 and git: run tests/run"]
fn resume_keeps_a_build_only_of_the_same_inputs_and_unchanged_files() {
    let folder = TempDir::new().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/packaging/release");
    let output = Command::new("python3")
        .args(["-c", RESUME])
        .args([&script, folder.path()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let reasons = String::from_utf8(output.stdout).unwrap();
    for key in ["commit", "tools", "version"] {
        assert!(reasons.contains(&format!("has other {key}\n")), "{reasons}");
    }
    assert!(reasons.contains("made has changed"), "{reasons}");
}

/// Calls the functions of the script that decide, since a build takes minutes.
const RESUME: &str = r#"
import json, pathlib, runpy, sys
script, top = sys.argv[1], pathlib.Path(sys.argv[2])
sys.path.insert(0, str(pathlib.Path(script).parent))
release = runpy.run_path(script)
has_inputs, finished_build = release["has_inputs"], release["finished_build"]
inputs = {"version": "1.2.3", "commit": "a", "tools": {"rustc": ["1.89"]}}
assert not has_inputs(top, inputs), "an empty folder"
(top / "inputs").write_text(json.dumps(inputs))
assert has_inputs(top, inputs)
for other in [{"version": "1.2.4"}, {"commit": "b"}, {"tools": {"rustc": ["1.90"]}}]:
    assert not has_inputs(top, inputs | other), other
assert finished_build(top, ["x"]) is None, "an interrupted build"
(top / "made").mkdir()
file = top / "made/file"
file.write_text("packed")
(top / "complete").write_text(json.dumps({"targets": ["x"], "sums": {"file": release["sha256"](file)}}))
assert finished_build(top, ["x"]) is not None
assert finished_build(top, ["x", "y"]) is None, "another target"
file.write_text("changed")
assert finished_build(top, ["x"]) is None, "a changed file"
"#;

/// A repository with the files from which the script takes the version.
struct Repository {
    folder: TempDir,
}

impl Repository {
    fn new() -> Repository {
        let folder = TempDir::new().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        fs::create_dir_all(folder.path().join("src/engine")).unwrap();
        write(
            "Cargo.toml",
            "[package]\nname = \"h-realtime\"\nversion = \"1.2.3\"\n\
             [dependencies]\nh-realtime-engine = { version = \"1.2.3\", path = \"src/engine\" }\n",
        );
        write("src/engine/Cargo.toml", "[package]\nversion = \"1.2.3\"\n");
        write(
            "Cargo.lock",
            "[[package]]\nname = \"h-realtime\"\nversion = \"1.2.3\"\n\
             [[package]]\nname = \"h-realtime-engine\"\nversion = \"1.2.3\"\n",
        );
        write(
            "CHANGELOG.md",
            "# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-11-30\n\n- The first entry.\n",
        );
        let repository = Repository { folder };
        repository.git(&["init", "--quiet"]);
        repository
    }

    fn replace(&self, file: &str, was: &str, is: &str) {
        let path = self.folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(was), "{file} has no {was}");
        fs::write(path, text.replacen(was, is, 1)).unwrap();
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&[
            "commit",
            "--quiet",
            "--allow-empty",
            "--message",
            "A commit",
        ]);
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(arguments);
        let output = self.run(&mut command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the checks of the release script. Returns its output, or the reasons of its refusal.
    fn check(&self, options: &[&str]) -> Result<String, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/packaging/release");
        let mut command = Command::new(script);
        command.arg("--check").args(options);
        let output = self.run(&mut command);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    }

    fn run(&self, command: &mut Command) -> Output {
        command
            .current_dir(self.folder.path())
            .env("RELEASE_ROOT", self.folder.path())
            // Without the configuration of this user, such as signatures of commits.
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(["AUTHOR", "COMMITTER"].into_iter().flat_map(|role| {
                let variable = |name: &str| format!("GIT_{role}_{name}");
                [
                    (variable("NAME"), "A name"),
                    (variable("EMAIL"), "name@example.org"),
                    (variable("DATE"), "2026-11-30T12:00:00Z"),
                ]
            }))
            .output()
            .unwrap()
    }
}
