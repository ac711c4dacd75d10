//! Families of figures: what has one name, one help and one kind, with a figure for each set of labels.
//!
//! Two figures with the same labels are one: a version may be shown twice under its label, when it was defined anew.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::measure::Histogram;

/// Labels with their values, in the order in which they are shown.
type Labels = Vec<(&'static str, String)>;

/// What a histogram's values are counted in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    /// As they are shown.
    One,
    /// In millionths.
    Micro,
}

/// One figure.
#[derive(Debug)]
enum Figure {
    Gauge(f64),
    Counter(u64),
    /// Sum, and a count for each bound.
    Histogram(f64, Vec<(f64, u64)>),
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    figures: BTreeMap<Labels, Figure>,
}

/// All families, in the order in which they were first named.
#[derive(Debug, Default)]
pub(super) struct Families(Vec<Family>);

impl Families {
    /// A figure that goes up and down.
    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.add(name, help, unit, labels, Figure::Gauge(value));
    }

    /// A figure that only goes up; its name is shown with `_total`.
    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        self.add(name, help, unit, labels, Figure::Counter(value));
    }

    /// Counts between bounds.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        labels: &[(&'static str, &str)],
        of: &Histogram,
        scale: Scale,
    ) {
        let shown = |value: u64| match scale {
            Scale::One => value as f64,
            Scale::Micro => value as f64 / 1e6,
        };
        // The last place has no bound.
        let places = of.places().map(|(bound, count)| (bound.map_or(f64::INFINITY, shown), count)).collect();
        self.add(name, help, unit, labels, Figure::Histogram(shown(of.sum()), places));
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        labels: &[(&'static str, &str)],
        figure: Figure,
    ) {
        let labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let family = match self.0.iter().position(|family| family.name == name) {
            Some(at) => self.0.get_mut(at),
            None => {
                self.0.push(Family { name, help, unit, kind: figure.kind(), figures: BTreeMap::new() });
                self.0.last_mut()
            }
        };
        let Some(family) = family else { return };
        match family.figures.get_mut(&labels) {
            Some(there) => there.merge(figure),
            None => drop(family.figures.insert(labels, figure)),
        }
    }
}

impl Figure {
    fn kind(&self) -> MetricType {
        match self {
            Self::Gauge(_) => MetricType::Gauge,
            Self::Counter(_) => MetricType::Counter,
            Self::Histogram(..) => MetricType::Histogram,
        }
    }

    fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Gauge(value), Self::Gauge(more)) => *value += more,
            (Self::Counter(value), Self::Counter(more)) => *value += more,
            (Self::Histogram(sum, places), Self::Histogram(more, of)) => {
                *sum += more;
                for ((_, count), (_, more)) in places.iter_mut().zip(of) {
                    *count += more;
                }
            }
            (Self::Gauge(_) | Self::Counter(_) | Self::Histogram(..), _) => unreachable!("a family is of one kind"),
        }
    }

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Gauge(value) => encoder.encode_gauge(value),
            Self::Counter(value) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
            Self::Histogram(sum, places) => {
                let count = places.iter().map(|(_, count)| count).sum();
                encoder.encode_histogram::<NoLabelSet>(*sum, count, places, None)
            }
        }
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let mut metric = encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
            for (labels, figure) in &family.figures {
                if labels.is_empty() {
                    figure.encode(&mut metric)?;
                } else {
                    figure.encode(&mut metric.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}
