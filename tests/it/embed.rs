//! `examples/embed.rs`: a program with a biotope in it, built and run as its reader would.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Home, repository, shown};

fn example(dir: &Path) -> Output {
    // What `cargo test` has built already is found as it is; with `--test it` alone it is built here. What cargo tells a
    // test of its package would have crates built anew that look at it.
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_MANIFEST") || name.starts_with("CARGO_PKG")) {
            cargo.env_remove(name);
        }
    }
    cargo
        .args(["run", "--quiet", "--locked", "--offline", "--example", "embed", "--manifest-path"])
        .arg(repository().join("Cargo.toml"))
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
fn the_embedding_example_runs_in_an_empty_directory_and_once_more() {
    let home = Home::bare();
    let dir = home.path("empty");
    std::fs::create_dir(&dir).unwrap();
    for _ in 0..2 {
        let output = example(&dir);
        assert!(output.status.success(), "{}", shown(&output));
        let said = "ann paid 4.25 after 1 failed attempt\ncancelled: nothing to charge\n\
                    cleo paid 1999.00 after 1 failed attempt\ndead: nobody has that much\n";
        assert_eq!(String::from_utf8(output.stdout).unwrap(), said);
    }
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["embed-data"]);
    let mut verify = Command::new(env!("CARGO_BIN_EXE_biotope"));
    let verified = verify.args(["log", "verify", "embed-data"]).current_dir(&dir).output().unwrap();
    assert!(verified.status.success(), "{}", shown(&verified));
}
