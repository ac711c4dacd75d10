//! The command line as a whole: that it is consistent, and that every example in its help is one.

use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    for args in [["biotope", "--config", "x.toml", "status"], ["biotope", "status", "--config", "x.toml"]] {
        assert_eq!(Cli::try_parse_from(args).unwrap().config.unwrap(), PathBuf::from("x.toml"));
    }
    assert!(Cli::try_parse_from(["biotope", "push", "t", "1", "--file", "f"]).is_err());
    assert!(Cli::try_parse_from(["biotope", "push", "--file", "f", "--min-version", "v2"]).is_err());
    for args in [&["x"][..], &["--failed-on", "a@v1"]] {
        assert!(Cli::try_parse_from([&["biotope", "jobs", "retry"], args].concat()).is_ok());
    }
    for args in [&[][..], &["x", "--failed-on", "a@v1"]] {
        assert!(Cli::try_parse_from([&["biotope", "jobs", "retry"], args].concat()).is_err());
    }
    assert!(Cli::try_parse_from(["biotope"]).is_err());
}

#[test]
fn a_mistake_in_the_use_leads_to_the_help_of_the_command_that_was_meant() {
    for (words, help) in [
        (&["restore", "x"][..], "biotope restore --help"),
        (&["jobs", "show"], "biotope jobs show --help"),
        (&["log", "dump", "x", "--form", "1"], "biotope log dump --help"),
        (&["jobs", "shw"], "biotope jobs --help"),
        (&["stats"], "biotope --help"),
    ] {
        let error = Cli::try_parse_from([&["biotope"], words].concat()).err().unwrap();
        let told = misuse(&error).unwrap();
        assert!(told.ends_with(&format!("`{help}` tells more")), "{told}");
    }
}

/// Every command below this one, itself first, with the words that lead to it.
fn all_of(command: &clap::Command, words: &[&str]) -> Vec<(Vec<String>, clap::Command)> {
    let own: Vec<String> = words.iter().map(ToString::to_string).collect();
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    let below = below.flat_map(|below| all_of(below, &[words, &[below.get_name()]].concat()));
    std::iter::once((own, command.clone())).chain(below).collect()
}

/// The words of a command as a shell takes them: what stands in single quotes is one.
fn words_of(command: &str) -> Vec<String> {
    let parts = command.split('\'').enumerate();
    let words = parts.flat_map(|(n, part)| match n % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[test]
fn every_help_has_an_example_that_can_be_typed() {
    let mut seen = 0;
    for (path, command) in all_of(&Cli::command(), &["biotope"]).into_iter().skip(1) {
        let path = path.join(" ");
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example = help.rsplit_once("Example: ").unwrap_or_else(|| panic!("{path}: its help has no example")).1;
        let typed = example
            .split(['|', '&', '>'])
            .map(words_of)
            .filter(|words| words.first().is_some_and(|word| word == "biotope"));
        let mut names_itself = false;
        for words in typed {
            let matches = Cli::command().try_get_matches_from(&words).unwrap_or_else(|error| panic!("{path}: {error}"));
            let chosen = std::iter::successors(matches.subcommand(), |(_, below)| below.subcommand());
            let chosen: Vec<&str> = std::iter::once("biotope").chain(chosen.map(|(name, _)| name)).collect();
            names_itself |= chosen.join(" ").starts_with(&path);
        }
        assert!(names_itself, "{path}: its example is of another command: {example}");
        seen += 1;
    }
    assert!(seen > 20, "{seen} commands");
}
