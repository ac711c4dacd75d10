//! Who changes the config of a campaign: new versions, bad ones, the way back, other settings, and files that must not pass.
//!
//! Labels say what a version is: `v` and its number a good one, `b` one that fails every job (and always gets a share first,
//! so that a version before it can make up for it), `x` one whose file must not pass. Numbers only grow.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::history::Event;
use crate::producer::Shared;
use crate::support::Home;
use crate::wire::get;
use crate::workers::SHORT_LOG;

/// Settings that need not make a new version.
struct Settings {
    concurrency: u8,
    rollout: String,
}

impl Settings {
    /// Those of the first and the last version: it takes over at once, and the one before leaves.
    fn plain() -> Self {
        Self { concurrency: 2, rollout: "warm_for = \"0s\"".to_owned() }
    }
}

pub(crate) struct Roller {
    history: PathBuf,
    service: u16,
    random: fastrand::Rng,
    /// How often it changed the file.
    turns: u32,
    /// The last number that was given.
    last: u32,
    /// The version that the last good file asks for.
    label: String,
    /// Numbers of versions that did the work of all types, the newest last.
    served: Vec<u32>,
}

impl Roller {
    /// Begins with the first version.
    pub(crate) fn begin(home: &Home, history: &Path, service: u16, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        // The content of a file that is named belongs to a version; of a directory it is the name alone.
        let (history, label) = (history.parent().unwrap().to_path_buf(), String::new());
        let mut roller = Self { history, service, random, turns: 0, last: 0, label, served: Vec::new() };
        roller.finish(home);
        roller
    }

    /// Puts the last version into the file: a good one, with the settings of the first.
    pub(crate) fn finish(&mut self, home: &Home) {
        self.last += 1;
        self.label = format!("v{}", self.last);
        self.write(home, &Settings::plain());
    }

    /// The version that the last good file asks for.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Changes the file. One in ten must not pass, one in five asks for a bad version.
    pub(crate) fn turn(&mut self, home: &Home, shared: &Shared) {
        self.turns += 1;
        match self.turns % 10 {
            0 => return self.spoil(home, shared),
            2 | 6 => self.take("b"),
            4 | 8 if !self.served.is_empty() => {
                let back = self.random.usize(self.served.len().saturating_sub(3)..self.served.len());
                self.label = format!("v{}", self.served[back]);
            }
            // The same version with other settings.
            3 | 5 => {}
            _ => self.take("v"),
        }
        let settings = self.settings();
        self.write(home, &settings);
    }

    fn take(&mut self, kind: &str) {
        self.last += 1;
        self.label = format!("{kind}{}", self.last);
    }

    fn settings(&mut self) -> Settings {
        let warm_for = ["0s", "200ms", "10m"][self.random.usize(..3)];
        let steps = if self.label.starts_with('b') {
            // By the time that it would have got more it is found out.
            "steps = [10, 50], hold = \"100ms\", min_samples = 100, "
        } else {
            [
                "",
                "steps = [50], hold = \"30ms\", min_samples = 5, ",
                "steps = [1, 40], hold = \"0s\", min_samples = 2, ",
            ][self.random.usize(..3)]
        };
        let rollout = format!("{steps}warm_for = \"{warm_for}\", versions_max = 10");
        Settings { concurrency: self.random.u8(1..=3), rollout }
    }

    /// A file that must not pass: a version with a mistake in it.
    fn spoil(&mut self, home: &Home, shared: &Shared) {
        let before = self.label.clone();
        self.take("x");
        shared.history.add(&Event::Never { version: self.last });
        let text = self.tables(&Settings::plain());
        self.label = before;
        let text = match self.random.u8(..3) {
            0 => text + "nonsense",
            1 => text.replace("concurrency", "concurency"),
            _ => text.replace("./each.sh", "./absent.sh"),
        };
        self.configure(home, &text);
    }

    fn write(&self, home: &Home, settings: &Settings) {
        self.configure(home, &self.tables(settings));
    }

    fn configure(&self, home: &Home, tables: &str) {
        home.configure_with(SHORT_LOG, tables);
    }

    fn tables(&self, settings: &Settings) -> String {
        let (label, history, service) = (&self.label, self.history.display(), self.service);
        let number = &label[1..];
        let (args, path) = if label.starts_with('b') { (", \"bad\"", "bad") } else { ("", "good") };
        let live = format!(
            "version = \"{label}\"\nmax_attempts = 1000\nbackoff = {{ first = \"10ms\", factor = 2, max = \"40ms\" }}\n\
             concurrency = {}\nrollout = {{ {} }}\n",
            settings.concurrency, settings.rollout
        );
        format!(
            "[workers.each]\nexec = [\"./each.sh\", \"{history}\", \"{number}\"{args}]\n{live}\
             [workers.held]\nexec = [\"./held.py\", \"{history}\", \"{number}\"{args}]\nmode = \"persistent\"\nbatch = 8\n{live}\
             [workers.call]\nhttp = \"http://127.0.0.1:{service}/{path}/{number}\"\nallow_private = true\n{live}\
             [workers.own]\n{live}"
        )
    }

    /// Looks at the routes of a biotope that serves: each is a valid one, whatever went before.
    pub(crate) fn look(&mut self, shared: &Shared) {
        let Some(seen) = get(shared.port, "/v1/ecosystem") else { return };
        let least = seen["types"].as_array().unwrap().iter().map(current).min().unwrap_or(0);
        if least > 0 && self.served.last() != Some(&least) {
            self.served.retain(|served| *served != least);
            self.served.push(least);
            shared.serves(least);
        }
    }
}

/// The number of the version that does a type's work, 0 if none does yet; checks that its route is a valid one.
fn current(of_type: &Value) -> u32 {
    let versions = of_type["versions"].as_array().unwrap();
    let labels = |states: &[&str]| -> Vec<&str> {
        let there = versions.iter().filter(|version| states.iter().any(|state| version["state"] == *state));
        there.map(|version| version["version"].as_str().unwrap()).collect()
    };
    let (current, beside) = (labels(&["current"]), labels(&["gating", "ramping"]));
    assert!(current.len() <= 1 && beside.len() <= current.len(), "{of_type}");
    let Some(label) = current.first() else { return 0 };
    let percent: u64 = versions.iter().map(|version| version["percent"].as_u64().unwrap()).sum();
    assert_eq!(percent, 100, "{of_type}");
    let number = label.strip_prefix('v').unwrap_or_else(|| panic!("no good version does the work: {of_type}"));
    number.parse().unwrap_or_else(|_| panic!("another definition under the same label: {of_type}"))
}
