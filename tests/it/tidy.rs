//! What no compiler checks: sizes, headers, leftovers, run bits.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{repository, shown};

/// All files that are in version control, or would be.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let names = String::from_utf8(output.stdout).unwrap();
    let files: Vec<_> = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    files.into_iter().filter(|path| repository().join(path).is_file()).collect()
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(repository().join(path)).ok()
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| (path.clone(), text(&path).unwrap())).collect()
}

#[test]
fn source_files_are_short_and_begin_with_what_they_own() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        if lines >= 500 {
            wrong.push(format!("{}: {lines} lines, split it", path.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{}: no //! header", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn sled_is_named_in_the_archive_alone() {
    for (path, text) in rust_files() {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let named = code.filter(|line| line.contains(concat!("sl", "ed::"))).count();
        let owner = path == Path::new("src/archive/slice.rs");
        assert_eq!(named > 0, owner, "{}: {named} lines name it", path.display());
    }
    let manifest = text(Path::new("Cargo.toml")).unwrap();
    assert!(
        manifest.contains("version = \"=0.34.7\", optional = true"),
        "its version is fixed, and only the daemon has it"
    );
}

#[test]
fn nothing_is_left_to_do() {
    // Spelled so that this file does not find itself.
    let words =
        [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["FIX", "ME"].concat(), ["dbg", "!("].concat()];
    for (path, text) in rust_files() {
        for word in &words {
            assert!(!text.contains(word.as_str()), "{}: {word}", path.display());
        }
    }
}

#[test]
fn no_path_of_a_machine_is_in_the_repository() {
    let here = repository().parent().unwrap().to_str().unwrap().to_owned();
    let words = [format!("{here}/"), ["/ho", "me/"].concat(), ["/ro", "ot/"].concat(), ["/us", "ers/"].concat()];
    for path in files() {
        let Some(text) = text(&path) else { continue };
        for word in words.iter().filter(|word| word.len() > 4) {
            assert!(!text.to_lowercase().contains(word.as_str()), "{}: {word}", path.display());
        }
    }
}

#[test]
fn programs_have_their_run_bit_and_a_first_line() {
    for path in files() {
        let Some(text) = text(&path) else { continue };
        let runs = std::fs::metadata(repository().join(&path)).unwrap().permissions().mode() & 0o111 != 0;
        let is_script = text.starts_with("#!/");
        let is_python_module = path.extension().is_some_and(|extension| extension == "py");
        assert!(!runs || is_script, "{}: a run bit, and no #! line", path.display());
        assert!(runs || !is_script || is_python_module, "{}: a #! line, and no run bit", path.display());
    }
    for program in ["tests/run", ".ci/run"] {
        assert!(text(Path::new(program)).unwrap().starts_with("#!/"), "{program}");
    }
}

#[test]
fn every_listed_skip_is_a_test() {
    let sources: String = rust_files().into_iter().map(|(_, text)| text).collect();
    for line in text(Path::new("tests/skips.txt")).unwrap().lines() {
        let line = line.split('#').next().unwrap().trim();
        let Some((name, reason)) = line.split_once(' ') else {
            assert!(line.is_empty(), "{line}: no reason");
            continue;
        };
        let function = name.rsplit("::").next().unwrap();
        assert!(sources.contains(&format!("fn {function}(")), "{name}: there is no such test");
        assert!(!reason.trim().is_empty(), "{name}: no reason");
    }
}

#[test]
fn every_skip_in_the_tests_bears_its_tests_name() {
    for (path, text) in rust_files() {
        for part in text.split("skipped(\"").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(text.contains(&format!("fn {name}(")), "{}: {name}", path.display());
        }
    }
}

#[test]
fn the_tests_that_hold_the_contract_exist() {
    let sources: String = rust_files().into_iter().map(|(_, text)| text).collect();
    let contract = text(Path::new("docs/durability.md")).unwrap();
    let names = contract.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2);
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        assert!(sources.contains(&format!("fn {name}(")), "docs/durability.md names {name}, and there is no such test");
    }
    let security = text(Path::new("SECURITY.md")).unwrap();
    let points = security.split("## The checklist").nth(1).unwrap();
    let names: Vec<&str> = points.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(sources.contains(&format!("fn {name}(")), "SECURITY.md names {name}, and there is no such test");
    }
}

#[test]
fn the_documented_paths_exist() {
    let documents = files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for path in documents.filter(|path| path.parent() == Some(Path::new("")) || path.starts_with("docs")) {
        let words = text(&path).unwrap();
        for word in words.split(|c: char| c.is_whitespace() || "()`,;'\"[]".contains(c)) {
            let named =
                ["examples/", "tests/", "src/", "benches/", ".ci/", "fuzz/"].iter().any(|dir| word.starts_with(dir));
            let made = word.contains("/data") || word.contains(['*', '<', '#']);
            if named && !made {
                let name = word.trim_end_matches(['.', ':']);
                assert!(repository().join(name).exists(), "{} names {name}", path.display());
            }
        }
    }
}
