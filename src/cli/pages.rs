//! What the command line says of itself: completions for shells, and pages of the manual. All of it comes of the definition
//! of the commands, so that it cannot say anything else.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, print};
use crate::exit::{BUG, Failure, IO};

/// Its name, as completions and pages have it.
const NAME: &str = "biotope";

/// Prints what a shell has to know to complete commands and options.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    print(text(script)?.trim_end())
}

/// Writes a page for each command into a directory, which is made if need be; without one, prints the first page.
pub(super) fn man(dir: Option<&Path>) -> Result<(), Failure> {
    let command = Cli::command();
    let Some(dir) = dir else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page).map_err(|error| Failure::new(BUG, error.to_string()))?;
        return print(text(page)?.trim_end());
    };
    let write = || {
        std::fs::create_dir_all(dir)?;
        clap_mangen::generate_to(command, dir)
    };
    write().map_err(|error| Failure::new(IO, format!("cannot write pages to {}: {error}", dir.display())))
}

fn text(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| Failure::new(BUG, error.to_string()))
}
