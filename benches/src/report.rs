//! All figures of a run, for programs; `text` prints them for people.

use serde::Serialize;

use crate::{
    capacity::Capacity, cells::Size, machine::Machine, processes::Pair, settings::Settings, syscalls::Calls,
    targets::Target, trips::Trips,
};

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// On what.
    pub machine: Machine,
    /// How.
    pub settings: Settings,
    /// In process, by number of items.
    pub sizes: Vec<Size>,
    /// Beside memcached's round trips.
    pub trips: Option<Trips>,
    /// Items that fit.
    pub capacity: Vec<Capacity>,
    /// Two processes.
    pub processes: Vec<Pair>,
    /// System calls.
    pub syscalls: Vec<Calls>,
    /// Seconds the run took.
    pub seconds: f64,
}

/// The figures and how they stand.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was measured.
    #[serde(flatten)]
    pub figures: Figures,
    /// What was to be reached.
    pub targets: Vec<Target>,
}

impl Report {
    /// Judges the figures.
    pub fn of(figures: Figures) -> Self {
        let targets = crate::targets::judge(&figures);
        Self { figures, targets }
    }

    /// Targets that were missed.
    pub fn missed(&self) -> usize {
        self.targets.iter().filter(|target| !target.reached).count()
    }
}
