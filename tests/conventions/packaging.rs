//! The Debian package and the container image are complete, and facts are stated in one place.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

#[test]
fn readme_has_the_commands_and_the_example() {
    let readme = read("README.md");
    for part in [
        "cargo run --release",
        "```rust",
        "systemctl enable",
        "examples/event.json",
    ] {
        assert!(readme.contains(part), "{part}");
    }
}

#[test]
fn maintainer_and_repository_are_stated_in_cargo_toml_alone() {
    let maintainer = env!("CARGO_PKG_AUTHORS");
    let (_, address) = maintainer.split_once('<').expect("a name and an address");
    let address = address.trim_end_matches('>');
    let repository = env!("CARGO_PKG_REPOSITORY");
    assert!(!repository.is_empty());
    let mut files = vec![root("README.md"), root("CHANGELOG.md")];
    for folder in ["docs", "examples", "src", "tests"] {
        files_below(&root(folder), &mut files);
    }
    for file in files {
        // Images are not text.
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for placeholder in [address, repository] {
            assert!(
                !text.contains(placeholder),
                "{} has {placeholder}",
                file.display()
            );
        }
    }
}

#[test]
fn description_is_a_synopsis_by_debian_policy() {
    let synopsis = env!("CARGO_PKG_DESCRIPTION");
    assert!(synopsis.len() <= 80, "{} bytes", synopsis.len());
    assert!(!synopsis.ends_with('.') && !synopsis.contains('\n'));
    let first = synopsis.split(' ').next().unwrap().to_lowercase();
    assert!(
        !["a", "an", "the", "h-realtime"].contains(&first.as_str()),
        "{synopsis}"
    );
}

#[test]
fn documents_and_examples_are_in_the_debian_package() {
    let patterns = asset_sources();
    let mut files = Vec::new();
    for folder in ["docs", "examples"] {
        files_below(&root(folder), &mut files);
    }
    assert!(files.contains(&root("docs/systemd/h-realtime-tls.socket")));
    let packaging = root("docs/packaging");
    for file in files.iter().filter(|file| !file.starts_with(&packaging)) {
        let covered = patterns.iter().any(|pattern| {
            let pattern = root(pattern);
            let in_folder = pattern.parent() == file.parent();
            in_folder && ["*", "*.*"].iter().any(|all| pattern.ends_with(all))
        });
        assert!(covered, "{} is in no asset of Cargo.toml", file.display());
    }
}

#[test]
fn template_unit_of_forward_is_installed() {
    let cargo = table("Cargo.toml");
    let assets = cargo["package"]["metadata"]["deb"]["assets"]
        .as_array()
        .unwrap();
    let is_unit = |asset: &&Value| {
        asset[0].as_str() == Some("docs/systemd/h-realtime-forward@.service")
            && asset[1].as_str() == Some("usr/lib/systemd/system/")
    };
    assert!(assets.iter().any(|asset| is_unit(&asset)));
    let unit = read("docs/systemd/h-realtime-forward@.service");
    // A receiver that is gone, and errors that a restart does not fix.
    assert!(unit.contains("RestartPreventExitStatus=64 65 66 68 76 77 78\n"));
}

#[test]
fn licenses_of_dependencies_are_in_the_package_and_in_the_image() {
    let collected = "target/packaging/THIRD-PARTY-LICENSES";
    assert!(asset_sources().iter().any(|source| source == collected));
    let (deb, image) = (
        read("docs/packaging/deb"),
        read("docs/packaging/Dockerfile"),
    );
    assert!(deb.contains("docs/packaging/third-party \"$made/THIRD-PARTY-LICENSES\""));
    assert!(image.contains("docs/packaging/third-party /made/THIRD-PARTY-LICENSES"));
    assert!(
        image.contains("COPY --from=build /made/THIRD-PARTY-LICENSES /usr/share/doc/h-realtime/")
    );
    // Both must use the same version of the tool.
    let version = |text: &str| -> String {
        let (_, rest) = text
            .split_once("cargo install cargo-about --version ")
            .unwrap();
        rest.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(
        version(&image),
        version(&read("docs/packaging/third-party"))
    );
}

#[test]
fn allowed_and_collected_licenses_are_the_same() {
    let names = |list: &Value| -> Vec<String> {
        let names = list.as_array().unwrap().iter();
        let mut names: Vec<_> = names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let allowed = names(&table("tests/deny.toml")["licenses"]["allow"]);
    assert_eq!(
        names(&table("docs/packaging/third-party.toml")["accepted"]),
        allowed
    );
}

/// Returns the files of the Debian package, as listed in Cargo.toml.
fn asset_sources() -> Vec<String> {
    let cargo = table("Cargo.toml");
    let assets = cargo["package"]["metadata"]["deb"]["assets"]
        .as_array()
        .unwrap();
    let sources = assets
        .iter()
        .map(|asset| asset[0].as_str().unwrap().to_owned());
    sources.collect()
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let hidden = path
            .file_name()
            .unwrap()
            .as_encoded_bytes()
            .starts_with(b".");
        if path.is_dir() && !hidden {
            files_below(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}

fn table(file: &str) -> Table {
    read(file)
        .parse()
        .unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn root(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}
